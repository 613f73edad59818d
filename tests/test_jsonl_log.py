"""Lines of a run that is killed, on a full disk, in several processes: nothing whole is lost, nothing torn stays."""

import os
from pathlib import Path
from typing import Any

import pytest

from divprune.errors import EvaluationError
from divprune.jsonl_log import JsonlLog, append_line, split_lines


def log_of(folder: Path | None, rank: int = 0, revision: str = "a") -> JsonlLog:
    return JsonlLog(folder, "scenes", {"revision": revision}, rank)


def read(folder: Path, **options: Any) -> list[dict[str, int]]:
    return log_of(folder, **options).read(dict)


def test_a_torn_last_line_is_left_out_and_one_without_its_end_is_not() -> None:
    assert split_lines(b"") == []
    assert split_lines(b'{"a": 1}\n{"b": 2') == [b'{"a": 1}']
    assert split_lines(b'{"a": 1}\n{"b": 2}') == [b'{"a": 1}', b'{"b": 2}']


@pytest.mark.parametrize("size", range(18))
def test_a_crash_after_any_byte_can_be_gone_on_from(tmp_path: Path, size: int) -> None:
    whole = b'{"a": 1}\n{"a": 2}\n'
    path = tmp_path / "log.jsonl"
    path.write_bytes(whole[:size])
    before = split_lines(whole[:size])
    append_line(path, b'{"a": 3}\n')
    assert path.read_bytes() == b"".join(line + b"\n" for line in [*before, b'{"a": 3}'])


@pytest.mark.parametrize("content", [b"precious", b'{"precious": 1', b'{"a": 1}\nprecious', b"1", b"\xff"])
def test_a_last_line_of_another_program_is_not_taken_for_a_torn_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    append_line(path, b'{"a": 3}\n')
    assert path.read_bytes() == content + b'\n{"a": 3}\n'


def test_lines_of_all_processes_are_read_and_those_of_another_identity_are_not(tmp_path: Path) -> None:
    for rank in range(3):
        log_of(tmp_path, rank).append({"rank": rank})
    assert read(tmp_path) == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
    assert read(tmp_path, revision="b") == []
    log_of(tmp_path, rank=0).delete(num_processes=2)
    assert read(tmp_path) == [{"rank": 1}]
    log_of(tmp_path).delete()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written() -> None:
    log = log_of(None)
    log.append({"a": 1})
    assert log.read(dict) == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    log_of(tmp_path).append({"a": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(EvaluationError, match=r"No space left on device.*make room"):
            log_of(tmp_path).append({"b": 2})
    assert read(tmp_path) == [{"a": 1}]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    log_of(tmp_path).append({"a": 1})
    (path,) = tmp_path.iterdir()
    path.write_text("no JSON\n")
    with pytest.raises(EvaluationError, match=r"cannot be read .*delete it"):
        read(tmp_path)
