"""Progress where no terminal draws bars: a line now and then, so that a log shows that something goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from divprune.progress import Advance

SECONDS_BETWEEN = 15.0
"""What takes less time is not told."""


class ProgressLines:
    """Writes how far something is.

    Attributes:
        write: takes a line.
        clock: tells the seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Write by `write`."""
        self.write, self.clock = write, clock

    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        """Tell every now and then that the block still runs."""
        started, done = self.clock(), Event()

        def tell() -> None:
            while not done.wait(SECONDS_BETWEEN):
                self.write(f"{description}: {_duration(self.clock() - started)}")

        teller = Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Advance]:
        """Tell every now and then how many of `total` steps are done, and how long the others may take."""
        started = told = self.clock()
        num_done = 0

        def advance(num_steps: int) -> None:
            nonlocal num_done, told
            num_done += num_steps
            now = self.clock()
            if now - told >= SECONDS_BETWEEN and num_done:
                told = now
                left = (now - started) / num_done * (total - num_done)
                taken = f"{_duration(now - started)}, about {_duration(left)} left"
                self.write(f"{description}: {num_done} of {total} ({taken})")

        yield advance


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
