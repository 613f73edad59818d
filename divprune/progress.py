"""Progress of what takes long: who is told how far it is, and how other libraries are kept from telling theirs."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of steps that are done."""


class Progress(Protocol):
    """Somebody who watches a long run: the command line draws bars, a notebook may print."""

    def working(self, description: str) -> AbstractContextManager[None]:
        """Show that something of unknown length runs inside the block."""

    def counting(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show how many of `total` steps are done inside the block."""

    def note(self, text: str) -> None:
        """Tell something that is no result, in one line."""


class _Silent:
    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        yield

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Advance]:
        yield lambda num_steps: None

    def note(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()
"""Shows nothing."""


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Silence other libraries' logs and warnings inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
