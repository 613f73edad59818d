"""Write to the terminal: tables, notes and progress for people, one JSON object for programs, errors in one line."""

import json
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from divprune.cli.progress_lines import ProgressLines
from divprune.cli.tables import Sheet
from divprune.errors import (
    ArgumentError,
    BatchError,
    CheckpointError,
    DivpruneError,
    EvaluationError,
    MediaError,
    MissingDependencyError,
    first_line,
    printable,
    root_cause,
)
from divprune.outputs import forced, short
from divprune.progress import Advance, quiet_logs

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 128 + signal.SIGINT

_NAMING_ARGUMENTS = (ArgumentError, BatchError, CheckpointError, EvaluationError, MediaError, MissingDependencyError)
_OPTIONS = {
    "images": "--image",
    "videos": "--video",
    "prompts": "--prompt",
    "include_paths": "--tasks-folder",
    "tokenizer": "--cider-tokenizer",
}
"""Options that are not called like the argument of the library."""


class _PrintableConsole(RichConsole):
    """Lets nothing but itself control the terminal: not a file name, nor what a model answers."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string, or the cell of a table, with control characters written out."""
        return super().render_str(printable(text), **options)


class Console:
    """Standard output carries the tables, or with `--json` only the JSON; everything else goes to standard error.

    It is the `Progress` that library functions tell how far they are.
    """

    def __init__(self, as_json: bool, **options: str) -> None:
        """Begin a command.

        Args:
            as_json: whether standard output is for programs.
            options: what this command calls an argument of the library, where others call it differently.
        """
        self._as_json, self._options = as_json, _OPTIONS | options
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                # An ASCII terminal is no reason to lose an answer.
                stream.reconfigure(errors="backslashreplace")
        # Answers and file names are printed as they are: no markup, no :emoji:.
        self._tables = _PrintableConsole(stderr=as_json, highlight=False, markup=False, emoji=False)
        self._progress = _PrintableConsole(stderr=True, highlight=False)
        self._lines = ProgressLines(lambda line: print(printable(line), file=sys.stderr, flush=True))

    def show(self, *shown: RenderableType | Sheet) -> None:
        """Print tables or lines; for other programs no line is wrapped, and a table is tab-separated."""
        for each in shown:
            if not isinstance(each, Sheet):
                self._tables.print(each, soft_wrap=not self.is_drawn)
            elif self.is_drawn:
                self._tables.print(each.drawn)
            else:
                # rich would put spaces in place of tabs.
                print(*each.tab_separated(), sep="\n", file=self._tables.file)

    def advise(self, *lines: str) -> None:
        """Print lines that help a reader and no program: nothing where no terminal shows them."""
        if self.is_drawn:
            self.show(*lines)

    def line(self, text: str) -> None:
        """Print a line as it is, however long, to be copied."""
        self._tables.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Tell something that is no result, in one line."""
        print(f"note: {printable(self._in_options(text))}", file=sys.stderr)

    def result(self, value: Mapping[str, Any]) -> None:
        """With `--json`, print the command's result as the last line of standard output."""
        if self._as_json:
            print(json.dumps(value, allow_nan=False), flush=True)

    @property
    def is_drawn(self) -> bool:
        """Whether a terminal shows the tables."""
        return self._tables.is_terminal

    @property
    def is_terminal(self) -> bool:
        """Whether somebody is watching the progress."""
        return self._progress.is_terminal

    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        """Show a spinner while the block runs; a line now and then if nobody is watching."""
        if not self.is_terminal:
            with self._lines.working(description):
                yield
            return
        with self._bar(TimeElapsedColumn()) as bars:
            bars.add_task(description, total=None)
            yield

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Advance]:
        """Show a bar while the block runs; a line now and then if nobody is watching."""
        if not self.is_terminal:
            with self._lines.counting(description, total) as advance:
                yield advance
            return
        with self._bar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bars:
            task = bars.add_task(description, total=total)
            yield lambda num_steps: bars.advance(task, num_steps)

    def _bar(self, *columns: Any) -> Bars:
        lead = (SpinnerColumn(), TextColumn("{task.description}"))
        return Bars(*lead, *columns, console=self._progress, transient=True)

    def explain(self, error: Exception) -> tuple[str, int]:
        """Return one line that says what to do about an exception, and the exit code.

        The code is 2 for what the user can put right and 1 for what looks like a defect.
        """
        if _out_of_memory(error):
            advice = "out of memory; try a smaller model, --dtype bfloat16, --num-keep, or another --device"
            return f"{advice} ({first_line(error)})", USER_ERROR
        if isinstance(error, DivpruneError):
            message = " ".join(str(error).split())
            return self._in_options(message) if isinstance(error, _NAMING_ARGUMENTS) else message, USER_ERROR
        if isinstance(error, OSError) and isinstance(error.filename, (str, Path)):
            return f"{error.strerror}: {short(Path(error.filename))}", USER_ERROR
        if isinstance(error, ImportError):
            return _import_advice(error), USER_ERROR
        return f"{type(error).__name__}: {first_line(error)} (--debug shows the traceback)", INTERNAL_ERROR

    def _in_options(self, message: str) -> str:
        """Put options in place of the names of Python arguments, which stand in backticks."""
        return re.sub(
            r"`([a-z_]+)(=False)?`", lambda found: self._option(found[1], is_off=found[2] is not None), message
        )

    def _option(self, argument: str, is_off: bool) -> str:
        prefix = "--no-" if is_off else "--"
        return self._options.get(argument, prefix + argument.replace("_", "-"))


@contextmanager
def command(as_json: bool, debug: bool, force: bool = False, **options: str) -> Iterator[Console]:
    """Run a command: other libraries are silenced, and any exception becomes one line on standard error.

    Args:
        as_json: whether standard output is for programs.
        debug: whether exceptions and other libraries' logs come through.
        force: whether outputs may replace files of other programs.
        options: see `Console`.
    """
    console = Console(as_json, **options)
    with one_line_errors(debug, console), nullcontext() if debug else quiet_logs(), forced(force):
        yield console


@contextmanager
def one_line_errors(debug: bool, console: Console | None = None) -> Iterator[None]:
    """Print any exception as one line on standard error and exit; with `debug`, let it through with its traceback.

    Ctrl-C is one line too, and the exit code that shells give it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if debug:
            raise
        print(printable(str(error) or "interrupted"), file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        message, code = (console or Console(as_json=False)).explain(error)
        print(f"error: {printable(message)}", file=sys.stderr)
        raise typer.Exit(code) from None


def _import_advice(error: ImportError) -> str:
    """Tell why importing transformers failed: reasons lie deeper, and only the deepest says anything."""
    cause = root_cause(error)
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
