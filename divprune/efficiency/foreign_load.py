"""How much of the machine others use while something is timed; rounds beside too much of it are measured again.

A time on a CPU lies beside other load: threads that wait for each other then wait for others' work too.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar

BUSY_CORES = 0.15
"""From so many cores that others keep busy on, times on a CPU are not to be trusted."""
UNTOLD_TICKS = 2
"""So many ticks of the system's clock tell nothing: those of short rounds are not held against them."""
_IDLE, _IO_WAIT, _GUEST = 3, 4, 8
"""Columns of /proc/stat; from the last one on, time counts twice."""

_Result = TypeVar("_Result")


class ForeignLoad:
    """Counts the processor time that processes other than this one and its descendants take, from its making on."""

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """Return how many cores others have kept busy on average; another machine's share of ours counts too.

        Returns:
            None where the system does not say: that takes Linux.
        """
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = (busy - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / self.seconds())

    def seconds(self) -> float:
        """Return for how long it has counted."""
        return time.perf_counter() - self._begun


@dataclass(frozen=True)
class Rounds(Generic[_Result]):
    """Repeated measurements.

    Attributes:
        results: of each round that is kept.
        foreign_cores: how many cores others kept busy in each of these; None where the system does not say.
        num_left_out: rounds that were left out because others were busy.
        num_busy: rounds that are kept although others were busy: no quiet one could be had.
    """

    results: tuple[_Result, ...]
    foreign_cores: tuple[float | None, ...]
    num_left_out: int
    num_busy: int

    def as_config(self) -> dict[str, Any]:
        """Return what a record says of it."""
        cores = [None if each is None else round(each, 3) for each in self.foreign_cores]
        return {"foreign_cores": cores, "rounds_left_out": self.num_left_out, "busy_rounds": self.num_busy}


def quiet_rounds(
    measure: Callable[[], _Result],
    repeats: int,
    *,
    max_seconds: float = inf,
    busy_cores: float = BUSY_CORES,
    load: Callable[[], ForeignLoad] = ForeignLoad,
) -> Rounds[_Result]:
    """Measure in rounds; those beside other load are left out and measured again, at most as many again.

    Args:
        measure: One round.
        repeats: How many rounds are wanted, at least 1. Where too few are quiet, the least busy ones fill up.
        max_seconds: No new round starts after this much time; the first one always does.
        busy_cores: So many cores may others use; inf for times that do not depend on the processor.
        load: Counts it.
    """
    started = time.perf_counter()
    quiet: list[tuple[_Result, float | None]] = []
    busy: list[tuple[_Result, float]] = []
    while len(quiet) < repeats and len(quiet) + len(busy) < 2 * repeats:
        if (quiet or busy) and time.perf_counter() - started > max_seconds:
            break
        watch = load()
        result, cores = measure(), watch.cores()
        untold = UNTOLD_TICKS / _ticks_per_second() / watch.seconds()
        if cores is not None and cores > busy_cores + untold:
            busy.append((result, cores))
        else:
            quiet.append((result, cores))
    busy.sort(key=lambda each: each[1])
    filling = busy[: repeats - len(quiet)]
    results, foreign_cores = zip(*quiet, *filling, strict=True)
    return Rounds(results, foreign_cores, len(busy) - len(filling), len(filling))


def busy_note(config: Mapping[str, Any]) -> str:
    """Return what a reader of a record's numbers must know about other load, from its `config`; empty if nothing."""
    cores = config.get("foreign_cores", ())
    if None in cores:
        return "Other load was not measured: that takes Linux."
    if not config.get("busy_rounds"):
        return ""
    return (
        f"The machine was busy in {config['busy_rounds']} of {len(cores)} rounds: others used up to {max(cores):.2f} "
        "cores. Measure again when it is quiet."
    )


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _busy_seconds() -> float | None:
    """Read how long all cores together have been busy; None where there is no /proc/stat."""
    try:
        first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return None
    ticks = [int(word) for word in first.split()[1:]][:_GUEST]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IO_WAIT]) / _ticks_per_second()


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
        total += sum(map(int, fields[11:15])) / _ticks_per_second()
        new += [int(child) for words in children for child in words.split()]
    return total
