"""What scoring may use besides Python, and where it keeps what it must not lose.

lmms-eval calls a task's functions without arguments of ours, so the settings of a run belong to the process: those of
`use(...)`, else those of the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from divprune.errors import EvaluationError

Tokenizer = Literal["auto", "java", "python"]

EGOSCHEMA_URL = "https://validation-server.onrender.com/api/upload/"
TOKENIZER_VARIABLE = "DIVPRUNE_CIDER_TOKENIZER"
FOLDER_VARIABLE = "DIVPRUNE_SCORING_FOLDER"
EGOSCHEMA_VARIABLE = "DIVPRUNE_EGOSCHEMA_URL"


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """How a run scores.

    Attributes:
        tokenizer: of captions: the official one ("java"), ours ("python"), or the official one without which captions
            are refused ("auto").
        folder: where answers of a judge and submissions are kept; the user's cache folder if None.
        egoschema_url: where EgoSchema's answers are sent for scoring.
        tries: how often a judge or a server is asked before it counts as unreachable.
        wait_seconds: before the second try; longer before each further one.
    """

    tokenizer: Tokenizer = "auto"
    folder: Path | None = None
    egoschema_url: str = EGOSCHEMA_URL
    tries: int = 5
    wait_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.tokenizer not in get_args(Tokenizer):
            raise EvaluationError(f"tokenizer must be one of {', '.join(get_args(Tokenizer))}, got {self.tokenizer!r}")

    @property
    def kept_in(self) -> Path:
        """The folder for what must not be lost."""
        return self.folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "divprune" / "scoring"


@dataclass
class _Process:
    settings: ScoringSettings | None = None


_PROCESS = _Process()


def current() -> ScoringSettings:
    """Return the settings of this process."""
    return _PROCESS.settings or from_environment()


def from_environment() -> ScoringSettings:
    """Return the settings of a run that is not ours, such as one of lmms-eval's own command."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return ScoringSettings(
        tokenizer=cast(Tokenizer, os.environ.get(TOKENIZER_VARIABLE) or "auto"),
        folder=Path(folder) if folder else None,
        egoschema_url=os.environ.get(EGOSCHEMA_VARIABLE) or EGOSCHEMA_URL,
    )


@contextmanager
def use(settings: ScoringSettings) -> Iterator[ScoringSettings]:
    """Let these settings hold inside the block, in all threads."""
    before = _PROCESS.settings
    _PROCESS.settings = settings
    try:
        yield settings
    finally:
        _PROCESS.settings = before
