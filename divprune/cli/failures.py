"""From exceptions to one line that says what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from divprune.errors import DivpruneError, first_line

USER_ERROR = 2
INTERNAL_ERROR = 1


class CommandError(DivpruneError):
    """Something the user can put right; the message is one line that says how."""


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Print any exception as one line on stderr and exit; with `debug`, let it through with its traceback.

    The exit code is 2 for what the user can put right and 1 for what looks like a defect.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        message, code = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(code) from None


def _explain(error: Exception) -> tuple[str, int]:
    if _out_of_memory(error):
        advice = "out of memory; try a smaller model, --dtype bfloat16, --num-keep, or another --device"
        return f"{advice} ({first_line(error)})", USER_ERROR
    if isinstance(error, DivpruneError):
        return " ".join(str(error).split()), USER_ERROR
    if isinstance(error, ImportError):
        return _import_advice(error), USER_ERROR
    return f"{type(error).__name__}: {first_line(error)} (--debug shows the traceback)", INTERNAL_ERROR


def _import_advice(error: ImportError) -> str:
    """Importing transformers fails for reasons that lie deeper, of which only the deepest says anything."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if "torchvision" in str(cause):
        return f"torchvision does not fit torch ({first_line(cause)}); install both as a pair, or uninstall torchvision"
    return f"a package cannot be imported: {first_line(cause)}"


def _out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; torch itself is not imported just to say that a file is missing.
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text))
    )
