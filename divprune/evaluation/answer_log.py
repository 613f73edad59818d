"""Answers on disk while a long evaluation runs, so that an interrupted run goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divprune.records import write_whole


@dataclass(frozen=True)
class Entry:
    """What a case said to one batch of questions.

    Attributes:
        case: the case's key.
        batch: the batch's key.
        said: one answer a question; empty if the case was refused.
        mean_kept: visual tokens kept of a picture.
        feed: what the model got of the pictures.
        refusal: why the case cannot run; None if it can.
    """

    case: str
    batch: str
    said: tuple[str, ...] = ()
    mean_kept: float = 0.0
    feed: str = ""
    refusal: str | None = None


class AnswerLog:
    """Entries by case and batch, each appended as one line as soon as it is there.

    Runs of another model, version or revision have a file of their own. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, name: str, identity: Mapping[str, Any]) -> None:
        """Read what an earlier run left.

        Args:
            folder: where the file lies.
            name: of what is evaluated.
            identity: everything that answers depend on apart from case and batch.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        self.path = None if folder is None else folder / f".{name}-{digest}.answers.jsonl"
        self._entries: dict[tuple[str, str], Entry] = {}
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    def get(self, case: str, batch: str) -> Entry | None:
        """Return the entry of a case and a batch, None if there is none yet."""
        return self._entries.get((case, batch))

    def add(self, entry: Entry) -> None:
        """Keep an entry."""
        self._entries[entry.case, entry.batch] = entry
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")

    def delete(self) -> None:
        """Remove the file: its answers are in a record now."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        whole, _, broken = text.rpartition("\n")
        for line in whole.splitlines():
            fields = json.loads(line)
            entry = Entry(**fields | {"said": tuple(fields["said"])})
            self._entries[entry.case, entry.batch] = entry
        if broken:
            # The run was killed within a line.
            write_whole(path, whole + "\n" if whole else "")
