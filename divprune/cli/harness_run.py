"""Has cells of a comparison run by lmms-eval, and shows how far they are."""

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.progress import Progress

from divprune.cli.harness_arguments import Running
from divprune.cli.screen import Screen, advance
from divprune.distributed import is_main_process
from divprune.errors import MissingDependencyError
from divprune.evaluation.cells import Cell

HARNESS = "divprune.lmms_eval_plugin.runs.run_cells"


class CellProgress:
    """A bar a cell, and notes; silent in all processes but the main one."""

    def __init__(self, screen: Screen, num_cells: int, is_silent: bool = False) -> None:
        """Begin before the first of `num_cells` cells."""
        self._screen, self._num_cells, self._is_silent = screen, num_cells, is_silent
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._num_begun = 0

    def cell(self, cell: Cell, num_requests: int) -> None:
        """Show a bar for a cell."""
        self.close()
        self._num_begun += 1
        if self._is_silent:
            return
        title = " ".join(part for part in (cell.task, cell.method, cell.budget_title) if part)
        heading = f"{self._num_begun} of at most {self._num_cells}: {title}"
        self._bar = self._stack.enter_context(self._screen.counting(heading, num_requests))

    def answered(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            advance(self._bar, count)

    def note(self, text: str) -> None:
        """Say something in one line."""
        if not self._is_silent:
            self._screen.note(text)

    def close(self) -> None:
        """Take the bar away."""
        self._stack.close()
        self._bar = None


def run_in_harness(
    cells: Sequence[Cell],
    running: Running,
    screen: Screen,
    *,
    output: Path,
    limit: int | None,
    resume: bool,
    debug: bool,
) -> None:
    """Have cells answered and scored; each leaves its record in the output folder.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a cell needs is missing, or a scorer failed.
    """
    harness = _harness()
    settings = harness.HarnessOptions(output=output, limit=limit, resume=resume, debug=debug, **running.given)
    progress = CellProgress(screen, len(cells), is_silent=not is_main_process())
    try:
        harness.run_cells(cells, settings, progress)
    finally:
        progress.close()


def _harness() -> Any:
    try:
        return import_module(HARNESS)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'running data sets needs lmms-eval: pip install "divprune[eval]" ({error})'
        ) from None
