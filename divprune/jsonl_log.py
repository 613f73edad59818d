"""Keep what a long run has found so far in a JSONL file, so that an interrupted run goes on where it stopped.

One rule for the disk: a line is there when `append_line` returns, whole or not at all. One rule for a crash: a last
line that is torn, and so no JSON, is no line: it is left out by readers, and gone when the next line is written.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from divprune.errors import EvaluationError, first_line
from divprune.outputs import write_whole

Parsed = TypeVar("Parsed")


def split_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file, without ends; a torn last one is left out, one that only lacks its end is not."""
    # Not `splitlines`: it also splits at characters that answers may hold.
    *lines, last = content.split(b"\n")
    return [*lines, last] if _is_json(last) else lines


def append_line(path: Path, line: bytes) -> None:
    """Write a line, its end included, behind all others; it is on disk when this returns.

    A torn last line goes only if it begins as this one does, as lines of one log do: with the same key.

    Raises:
        OSError: the disk takes no more; the file is as it was.
    """
    if not _ends_whole(path):
        # In one step: a first line that a crash tore could not be told from another program's file.
        *before, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
        key = line.partition(b":")[0]
        is_torn = not _is_json(last) and last[: len(key)] == key[: len(last)]
        write_whole(path, b"".join(each + b"\n" for each in (before if is_torn else [*before, last])) + line)
        return
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            # The system may take less at a time than it is given.
            for first in iter(lambda: file.tell() - size, len(line)):
                file.write(line[first:])
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise


class JsonlLog:
    """Lines of a run, in a hidden file beside its record.

    A run of several processes has a file for each; all are read, so that another number of processes can go on. Runs of
    another identity have files of other names. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, name: str, identity: Mapping[str, Any], rank: int = 0) -> None:
        """Name the files; nothing is read or written yet.

        Args:
            folder: where they lie.
            name: of the record that is being made.
            identity: everything that lines depend on apart from what they say themselves.
            rank: of this process.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        self._folder, self._stem = folder, f".{name}-{digest}.answers"
        self._own = None if folder is None else folder / f"{self._stem}-{rank}.jsonl"

    def read(self, parse: Callable[[Any], Parsed]) -> list[Parsed]:
        """Return the lines of all processes.

        Args:
            parse: what to make of each; raises if it is none of ours.

        Raises:
            EvaluationError: a file is broken.
        """
        return [line for path in self._paths() for line in _parsed(path, parse)]

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write a line to this process's file.

        Raises:
            EvaluationError: the disk takes no more.
        """
        if self._own is None:
            return
        try:
            append_line(self._own, json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise EvaluationError(
                f"an answer cannot be written to {self._own} ({error.strerror}); make room and run the same command "
                "again: it goes on from the answers that are there"
            ) from None

    def delete(self, num_processes: int | None = None) -> None:
        """Remove the files of all processes.

        Args:
            num_processes: leave alone the others among so many, which delete their own.
        """
        for path in self._paths():
            rank = int(path.stem.rpartition("-")[2])
            if num_processes is None or rank >= num_processes or path == self._own:
                path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob(f"{self._stem}-*.jsonl"))


def _parsed(path: Path, parse: Callable[[Any], Parsed]) -> list[Parsed]:
    try:
        return [parse(json.loads(line)) for line in split_lines(path.read_bytes())]
    except FileNotFoundError:
        # Another process has deleted it meanwhile.
        return []
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise EvaluationError(
            f"{path} cannot be read ({first_line(error)}); delete it, and its answers are asked for again"
        ) from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _ends_whole(path: Path) -> bool:
    """Tell whether a file is there, and its last line has its end."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
