"""The records that figures are drawn from, and how each of them is made."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from divprune.records import Record, load_record

COMMANDS: Mapping[str, str] = {
    "eval-scenes": "divprune eval --suite scenes",
    "samples": "python -m benchmarks.samples",
    "selection": "python -m benchmarks.selection",
    "bench-*": "divprune bench --architecture llava-1.5-7b --output results",
}
"""What writes each record; `*` stands for any number of them."""


@dataclass(frozen=True)
class Sources:
    """A folder of records.

    Attributes:
        folder: where they are.
    """

    folder: Path

    def missing(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the names, keys of `COMMANDS`, of which there is no record."""
        return tuple(pattern for pattern in patterns if not self._paths(pattern))

    def load(self, patterns: tuple[str, ...]) -> tuple[Record, ...]:
        """Read all records of these names, in their order.

        Raises:
            RecordError: one of them is no record.
        """
        return tuple(load_record(path) for pattern in patterns for path in self._paths(pattern))

    def stamp(self, patterns: tuple[str, ...]) -> str:
        """Return names and checksums of the records, by which a drawing can tell whether it is still theirs."""
        paths = [path for pattern in patterns for path in self._paths(pattern)]
        return ", ".join(f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" for path in paths)

    def _paths(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(f"{pattern}.json"))
