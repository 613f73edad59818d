"""Cells of a comparison, run through lmms-eval in this process: every cell ends in a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from divprune.evaluation.cells import Cell
from divprune.records import Record

Backend = Literal["hf", "vllm", "openai-server"]


@dataclass(frozen=True)
class HarnessOptions:
    """How cells are run."""

    output: Path
    limit: int | None = None
    backend: Backend = "hf"
    base_url: str | None = None
    served_model: str | None = None
    num_concurrent: int = 16
    batch_size: int = 1
    device: str = "auto"
    dtype: str = "auto"
    num_frames: int = 8
    system_prompt: str = ""
    data: Path | None = None
    include_paths: tuple[Path, ...] = ()
    resume: bool = True
    tokenizer: Literal["auto", "java", "python"] = "auto"
    egoschema_url: str | None = None
    debug: bool = False


class Progress(Protocol):
    """Who is told how far a run is."""

    def cell(self, cell: Cell, num_requests: int) -> None:
        """Tell that a cell begins."""

    def answered(self, count: int) -> None:
        """Tell that so many requests are answered."""

    def note(self, text: str) -> None:
        """Tell something else, in one line."""


def run_cells(cells: Sequence[Cell], options: HarnessOptions, progress: Progress) -> list[Record]:
    """Run cells, and write a record for each."""
    raise NotImplementedError


def is_main_process() -> bool:
    """Whether this process writes the records."""
    raise NotImplementedError
