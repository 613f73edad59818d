"""What a model has said so far, on disk: a batch is written as soon as it is answered, and never asked again."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divprune.errors import EvaluationError, first_line
from divprune.records import write_whole


@dataclass(frozen=True, slots=True)
class Said:
    """The answer to one request.

    Attributes:
        key: of the request; see `request_key`.
        response: a text, texts of several rounds, or a log-likelihood and whether it is greedy.
        input_tokens: length of the prompt after pruning; None if the backend does not tell.
        output_tokens: length of the answer; None if the backend does not tell.
    """

    key: str
    response: Any
    input_tokens: int | None = None
    output_tokens: int | None = None


class AnswerFile:
    """Answers by request, and the measurements of the calls that gave them.

    A run of several processes has a file for each; all are read, so that another number of processes can go on. Runs
    with other settings have files of another name.
    """

    def __init__(self, folder: Path, name: str, identity: Mapping[str, Any], rank: int = 0) -> None:
        """Read what earlier runs left.

        Args:
            folder: where the files lie.
            name: of what is evaluated.
            identity: everything that answers depend on apart from the request.
            rank: of this process.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        self._folder, self._stem = folder, f".{name}-{digest}.answers"
        self.path = folder / f"{self._stem}-{rank}.jsonl"
        self._said: dict[str, Said] = {}
        self._measured: list[Mapping[str, Any]] = []
        for path in self._paths():
            self._read(path, is_own=path == self.path)

    def __len__(self) -> int:
        """Return how many answers there are."""
        return len(self._said)

    def get(self, key: str) -> Said | None:
        """Return the answer to a request, None if there is none yet."""
        return self._said.get(key)

    def add(self, answers: Iterable[Said], measured: Iterable[Mapping[str, Any]] = ()) -> None:
        """Keep the answers of a batch and what was measured meanwhile: one line, whole or not at all.

        Raises:
            EvaluationError: the disk takes no more.
        """
        batch, figures = list(answers), list(measured)
        line = json.dumps({"said": [asdict(one) for one in batch], "measured": figures}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EvaluationError(
                f"an answer cannot be written to {self.path} ({error.strerror}); make room and run the same command "
                "again: it goes on from the answers that are there"
            ) from None
        self._said.update((one.key, one) for one in batch)
        self._measured += figures

    def measured(self) -> list[Mapping[str, Any]]:
        """Return the measurements of all calls, those of earlier runs and other processes included."""
        return list(self._measured)

    def reread(self) -> None:
        """Read what other processes have written meanwhile."""
        for path in self._paths():
            if path != self.path:
                self._read(path, is_own=False)

    def empty(self, num_processes: int) -> None:
        """Forget everything: this process's file, and those of processes that are not there any more."""
        self._said.clear()
        self._measured.clear()
        others = [path for path in self._paths() if int(path.stem.rpartition("-")[2]) >= num_processes]
        for path in (self.path, *others):
            path.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the files: their answers are in a record now."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._stem}-*.jsonl"))

    def _read(self, path: Path, is_own: bool) -> None:
        try:
            whole, _, broken = path.read_text(encoding="utf-8").rpartition("\n")
            lines = [json.loads(line) for line in whole.splitlines()]
            for line in lines:
                answers = [Said(**fields) for fields in line["said"]]
                if any(one.key not in self._said for one in answers):
                    self._measured += line["measured"]
                self._said.update((one.key, one) for one in answers)
        except FileNotFoundError:
            # Another process has deleted it meanwhile.
            return
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise EvaluationError(
                f"{path} cannot be read ({first_line(error)}); delete it, and its answers are asked for again"
            ) from None
        if broken and is_own:
            # The run was killed within a line.
            write_whole(path, whole + "\n" if whole else "")


def request_key(kind: str, request: Any, occurrence: int) -> str:
    """Return what identifies a request of lmms-eval: its task, document and words, not its pictures.

    Args:
        kind: "generate_until", "loglikelihood" or the like.
        request: an `Instance`.
        occurrence: how many equal requests stand before it: tasks may ask the same several times.
    """
    words = [part for part in request.args if isinstance(part, (str, int, float, Mapping))]
    told = [kind, request.task_name, request.doc_id, request.idx, occurrence, words]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:24]
