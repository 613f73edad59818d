"""The memory of a server's processes while it works."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

SECONDS_BETWEEN_SAMPLES = 0.5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# By the command line of the process.
ROLES = {"divprune.serving.watch": "divprune serve", "api_server": "server", "EngineCore": "engine", "Worker": "worker"}


class MemoryLog:
    """Samples the resident memory of processes while a block runs."""

    def __init__(self, processes: Mapping[int, str], num_done: Callable[[], int]) -> None:
        self._roles = {number: _role(command) for number, command in processes.items()}
        self._num_done = num_done
        self._samples: list[tuple[int, dict[str, int]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "MemoryLog":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def rows(self) -> list[dict[str, Any]]:
        """Start and end are medians of the first and the last tenth of the samples."""
        names = [*dict.fromkeys(self._roles.values())]
        return [self._row(name, [sample[name] for _, sample in self._samples]) for name in names] + [
            self._row("all", [sum(sample.values()) for _, sample in self._samples])
        ]

    def _row(self, name: str, sizes: list[int]) -> dict[str, Any]:
        tenth = max(1, len(sizes) // 10)
        done = [number for number, _ in self._samples]
        return {
            "what": "resident memory",
            "process": name,
            "num_samples": len(sizes),
            "start_bytes": int(median(sizes[:tenth])),
            "end_bytes": int(median(sizes[-tenth:])),
            "max_bytes": max(sizes),
            "slope_bytes_per_request": round(linear_regression(done, sizes).slope, 1),
            # The slope above holds also what fills up once.
            "slope_of_second_half_bytes_per_request": round(
                linear_regression(done[len(done) // 2 :], sizes[len(sizes) // 2 :]).slope, 1
            ),
        }

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_SAMPLES):
            sample: dict[str, int] = {}
            for number, role in self._roles.items():
                sample[role] = sample.get(role, 0) + _resident_bytes(number)
            self._samples.append((self._num_done(), sample))


def _role(command: str) -> str:
    return next((role for part, role in ROLES.items() if part in command), "helpers")


def _resident_bytes(number: int) -> int:
    return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * PAGE_BYTES
