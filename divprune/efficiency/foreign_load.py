"""Measure how much of the machine others use, so that a record says how quiet the machine was."""

import os
import time
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE, _IO_WAIT, _GUEST = 3, 4, 8
"""Columns of /proc/stat; from the last one on, time counts twice."""


class ForeignLoad:
    """Counts the processor time that processes other than this one and its descendants take, from its making on."""

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Return how many cores others have kept busy on average; another machine's share of ours counts too."""
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / (time.perf_counter() - self._begun))


def _busy_seconds() -> float:
    """Read how long all cores together have been busy."""
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    ticks = [int(word) for word in first.split()[1:]][:_GUEST]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IO_WAIT]) / _TICKS_PER_SECOND


def _own_seconds() -> float:
    """Read the processor time of this process, its descendants, and those of them that have ended."""
    total, new = 0.0, [os.getpid()]
    while new:
        number = new.pop()
        try:
            fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            children = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{number}/task").glob("*/children")]
        except OSError:
            # It has ended meanwhile.
            continue
        # User and system time, of the process itself and of the children that it has waited for.
        total += sum(map(int, fields[11:15])) / _TICKS_PER_SECOND
        new += [int(child) for words in children for child in words.split()]
    return total
