"""Where the command line writes: tables, notes and progress for people, one JSON object for programs."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Screen:
    """Standard output carries the tables, or with `--json` only the JSON; everything else goes to standard error."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        # Answers and file names are printed as they are: no markup, no :emoji:.
        self._tables = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
        self._progress = Console(stderr=True, highlight=False)

    def show(self, renderable: RenderableType = "") -> None:
        """Print a table or a line."""
        self._tables.print(renderable)

    def line(self, text: str) -> None:
        """Print a line as it is, however long, to be copied."""
        self._tables.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Tell something that is no result, in one line."""
        print(f"note: {text}", file=sys.stderr)

    def result(self, value: Mapping[str, Any]) -> None:
        """With `--json`, print the command's result as the last line of standard output."""
        if self._as_json:
            print(json.dumps(value, allow_nan=False), flush=True)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody is watching the progress."""
        return self._progress.is_terminal

    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        """Show a spinner while the block runs; nothing if nobody is watching."""
        with self._bar(TimeElapsedColumn()) as progress:
            progress.add_task(description, total=None)
            yield

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Progress]:
        """Show a bar while the block runs; it calls `advance(progress)` after each step."""
        with self._bar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
            progress.add_task(description, total=total)
            yield progress

    def _bar(self, *columns: Any) -> Progress:
        lead = (SpinnerColumn(), TextColumn("{task.description}"))
        return Progress(*lead, *columns, console=self._progress, transient=True, disable=not self.is_terminal)


def advance(progress: Progress, num_steps: int = 1) -> None:
    """Steps of `Screen.counting` are done."""
    for task in progress.tasks:
        progress.advance(task.id, num_steps)


@contextmanager
def quiet_logs(debug: bool) -> Iterator[None]:
    """Silence other libraries' logs and warnings while the block runs; with `debug`, do nothing."""
    if debug:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def quiet_progress_bars(debug: bool) -> Iterator[None]:
    """Silence transformers' progress bars while the block runs (ours stay); with `debug`, do nothing."""
    from transformers.utils import logging as transformers_logging

    bars_were_on = transformers_logging.is_progress_bar_enabled()
    if not debug:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars_were_on:
            transformers_logging.enable_progress_bar()
