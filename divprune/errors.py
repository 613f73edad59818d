"""Every exception that divprune raises on its own account.

Wrong arguments are plain `ValueError` and `TypeError`. The rest derives from `DivpruneError`, so that one `except`
catches it; where a built-in exception says the same thing, the class derives from that too.

Messages write the name of a Python argument in backticks: `` `keep_ratio` ``. The command line puts its options there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# What a terminal obeys, what ends a line, what reverses the order of letters, and what no encoding has.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ENDLESS = re.compile(r"\S{201,}")


def printable(text: str) -> str:
    r"""Return a text whose control characters are written out, such as \x1b for ESC; names of files may hold any.

    Words of more than 200 characters, such as data: URLs, end after 80.
    """
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return _ENDLESS.sub(lambda found: f"{found[0][:80]}...", text)


class DivpruneError(Exception):
    """Base class of the errors below. Their messages are `printable`."""

    def __str__(self) -> str:
        """Return the message."""
        return printable(super().__str__())


class ArgumentError(DivpruneError, ValueError):
    """An argument cannot work, alone or beside another; found before anything slow begins."""


class UnsupportedModelError(DivpruneError, ValueError):
    """The model's family has no adapter, or uses something that cannot be pruned."""


class UnsupportedVersionError(DivpruneError, ValueError):
    """A dependency is there in a version whose internals are not what divprune relies on."""


class UnknownMethodError(DivpruneError, ValueError):
    """No pruning method has this name."""


class PruningError(DivpruneError, RuntimeError):
    """A supported model met an input that cannot be pruned, or its state does not allow pruning now."""


class SelectionError(DivpruneError, ValueError):
    """A method cannot choose from these tokens, or did not answer what a method must."""


class RecordError(DivpruneError, ValueError):
    """A result record is not what `divprune.records` wrote."""


class MissingDependencyError(DivpruneError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra."""


class MediaError(DivpruneError, ValueError):
    """An image or video is missing, damaged, too large or of another kind."""


class BatchError(DivpruneError, ValueError):
    """A batch of questions, or the file for its answers, is not of the form that it must have."""


class ServerError(DivpruneError, ValueError):
    """A server cannot be started as asked."""


class EvaluationError(DivpruneError, ValueError):
    """An evaluation cannot be run as asked: something that it needs is missing, or a scorer failed."""


class CheckpointError(DivpruneError, ValueError):
    """A checkpoint is not there, not complete, or cannot be loaded."""


class PromptError(DivpruneError, ValueError):
    """A question and its media are not a prompt of the model at hand."""


class CalibrationError(DivpruneError, ValueError):
    """A calibration is of another model, not readable, or its target is out of reach."""


class TuningError(DivpruneError, ValueError):
    """No setting keeps the promise, a tuned setting is of another model, or its file is not readable."""


@contextmanager
def argument_errors() -> Iterator[None]:
    """Raise what wrong arguments raise inside the block as `ArgumentError`; defects elsewhere stay what they are."""
    try:
        yield
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise ArgumentError(" ".join(str(error).split())) from None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if there is none."""
    # Not `splitlines`: names of files may hold other characters that it takes for ends of lines.
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return lines[0] if lines else type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """Return the exception that an exception was raised from, and that one from, and so on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
