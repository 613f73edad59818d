"""One rule for whatever is written: every kind of file, over everything that may be in its place."""

import ast
import errno
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import divprune
from divprune.calibration import VTWCalibration
from divprune.demo.html_report import REPORT
from divprune.errors import ArgumentError
from divprune.experiments import run as reproduce_run
from divprune.figures import gallery
from divprune.figures.saving import FIGURE
from divprune.methods import FitPruneRecipe
from divprune.outputs import FileKind, forced, locked, safe_output, write_folder, write_whole
from divprune.records import _RECORD, Record, calibration_file
from divprune.serving.answer_lines import ANSWERS, Answer, written
from divprune.serving.question_keys import QuestionKey

PACKAGE = Path(divprune.__file__).parent
DOCS = PACKAGE.parent / "docs"


def saved(save: Callable[[Path], object]) -> Callable[[Path], bytes]:
    """The content of a file that a function writes."""

    def content(folder: Path) -> bytes:
        save(folder / "x.json")
        path = folder / "x.json"
        found = path.read_bytes()
        path.unlink()
        return found

    return content


REPORT_TEXT = b"<!doctype html>\n<html><head><title>divprune: 5 of 50 visual tokens</title></head></html>"
KINDS: dict[str, tuple[FileKind, Callable[[Path], bytes]]] = {
    "report": (REPORT, lambda folder: REPORT_TEXT),
    "record": (_RECORD, saved(lambda path: Record("x", {}, []).save(path.parent))),
    "VTW": (calibration_file("VTW"), saved(VTWCalibration("m", 1, 0.1, 1, {1: 0.0}).save)),
    "FitPrune": (calibration_file("FitPrune"), saved(FitPruneRecipe((1, 2), 9).save)),
    "png": (FIGURE, lambda folder: (DOCS / "figures" / "selection-time.png").read_bytes()),
    "svg": (FIGURE, lambda folder: (DOCS / "figures" / "selection-time.svg").read_bytes()),
    "page": (gallery._PAGE, lambda folder: (DOCS / "figures.md").read_bytes()),
    "table": (reproduce_run._TABLE, lambda folder: f"# T\n\n| {reproduce_run.FIRST_COLUMN} | x |\n".encode()),
    "answers": (ANSWERS, lambda folder: written(Answer("1", "?", (), "s"), QuestionKey(None, None))),
}
FOREIGN = (
    b"precious",
    b" ",
    b"\x89PNG\r\n\x1a\n",
    b"{}",
    b'{"format": 1}',
    b'{"name": "package", "version": "1.0"}',
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b"<!doctype html><title>divprune: my notes</title>",
    b"# Notes\n",
    b"\xff\xfe\x00",
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(kind: str, path: Path, inputs: tuple[Path, ...] = ()) -> None:
    write_whole(safe_output("output", path, KINDS[kind][0], inputs), "new")


def refused(kind: str, path: Path, inputs: tuple[Path, ...] = ()) -> str:
    """The one line that refuses a path."""
    with pytest.raises(ArgumentError) as caught:
        safe_output("output", path, KINDS[kind][0], inputs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300, message
    return message


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_of_another_program_is_replaced_by_force_only(
    tmp_path: Path, kind: str, content: bytes, is_link: bool
) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(content)
    link.symlink_to("file")
    assert "or replace it by `force`" in refused(kind, link if is_link else path)
    assert path.read_bytes() == content
    with forced():
        write(kind, link if is_link else path)
    assert path.read_bytes() == b"new"
    assert link.is_symlink()


def test_no_kind_takes_another_for_its_own(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    for name, (other, content) in KINDS.items():
        path.write_bytes(content(tmp_path))
        assert KINDS[kind][0].is_kind_of(path) == (other == KINDS[kind][0]), name


IN_THE_WAY: dict[str, Callable[[Path], Path]] = {
    "a directory": lambda folder: folder,
    "no folder": lambda folder: folder / "missing" / "file",
    "a file as folder": lambda folder: folder / "input" / "file",
    "a long name": lambda folder: folder / ("n" * 256),
    "a long path": lambda folder: folder.joinpath(*["n" * 200] * 30),
    "a null byte": lambda folder: folder / "a\0b",
    "a link to itself": lambda folder: linked(folder / "loop", "loop"),
    "a link to no folder": lambda folder: linked(folder / "link", "missing/file"),
    "the input": lambda folder: folder / "input",
    "the input, spelt differently": lambda folder: folder / ".." / folder.name / "input",
    "a link to the input": lambda folder: linked(folder / "link", "input"),
    "a link to a link": lambda folder: linked(folder / "other", linked(folder / "link", "input").name),
    "a hard link to the input": lambda folder: hard(folder / "hard", folder / "input"),
}


def linked(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def hard(path: Path, target: Path) -> Path:
    path.hardlink_to(target)
    return path


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("state", IN_THE_WAY)
def test_what_is_impossible_or_read_is_refused_even_by_force(
    tmp_path: Path, kind: str, state: str, force: bool
) -> None:
    source = tmp_path / "input"
    source.write_bytes(KINDS[kind][1](tmp_path))
    before = source.read_bytes()
    with forced(force):
        refused(kind, IN_THE_WAY[state](tmp_path), (source,))
    assert source.read_bytes() == before


def test_without_permission_it_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(KINDS[kind][1](tmp_path))
    # Root may do everything.
    monkeypatch.setattr(os, "access", lambda target, mode: Path(target) != path)
    assert "no permission to replace it" in refused(kind, path)
    monkeypatch.setattr(os, "access", lambda target, mode: False)
    assert "no permission to write into" in refused(kind, path)


@pytest.mark.parametrize("name", ["file", "n" * 255, "ü 猫", os.fsdecode(b"caf\xe9"), "\x1b[2J\a", "-rf", " "])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_any_name_and_the_mode_of_the_umask(tmp_path: Path, kind: str, name: str, umask: int) -> None:
    path = tmp_path / name
    before = os.umask(umask)
    try:
        write(kind, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o604, 0o644, 0o660, 0o755])
@pytest.mark.parametrize("place", ["itself", "link", "dangling", "empty"])
def test_ours_is_replaced_with_its_mode_and_links_stay(tmp_path: Path, kind: str, mode: int, place: str) -> None:
    (tmp_path / "other").mkdir()
    path, link = tmp_path / "other" / "file", tmp_path / "link"
    link.symlink_to("other/file")
    if place != "dangling":
        path.write_bytes(b"" if place == "empty" else KINDS[kind][1](tmp_path))
        path.chmod(mode)
    write(kind, path if place == "itself" else link)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode or place == "dangling"
    assert os.readlink(link) == "other/file"
    assert list(path.parent.iterdir()) == [path]


def test_devices_and_fifos_are_written_through(tmp_path: Path, kind: str) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write(kind, fifo)
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    for device in (link, Path("/dev/null")):
        write(kind, device)
        assert device.is_char_device()
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_full_disk_or_a_kill_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_killed: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    if is_killed:
        code = f"""
import os, pathlib, divprune.outputs
os.{step} = lambda *arguments: os.kill(os.getpid(), 9)
divprune.outputs.write_whole(pathlib.Path({str(path)!r}), "new")
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, step, full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, "new")
        assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_text_that_no_encoding_has_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", os.fsdecode(b"caf\xe9 \xc3\xa9"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "caf\\udce9 é"


@pytest.mark.parametrize("name", ["answers.jsonl", "n" * 255, os.fsdecode(b"caf\xe9")])
def test_two_writers_are_locked_out_and_a_killed_one_is_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with locked("output", path):
        (tmp_path / "link").symlink_to(name)
        with pytest.raises(ArgumentError, match="is being written by another process"), locked("output", path):
            pass
        with pytest.raises(ArgumentError, match="another process"), locked("output", tmp_path / "link"):
            pass
        with locked("output", tmp_path / "another"):
            pass
    code = f"""
import os, pathlib, divprune.outputs
with divprune.outputs.locked("output", pathlib.Path({os.fsencode(path)!r}.decode("utf-8", "surrogateescape"))):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with locked("output", path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["link"]


def test_nothing_in_the_package_writes_files_by_itself() -> None:
    """What does: the two modules whose business it is, a switch of the kernel, and a file of a temporary folder."""
    allowed = {"outputs.py", "jsonl_log.py", "memory.py", "captions.py"}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            opens = name == "open" and any(
                isinstance(mode, str) and re.fullmatch("[rbt]*[wax+][bt+]*", mode) for mode in modes
            )
            if opens or name in ("write_text", "write_bytes", "replace_file", "rename", "save_file", "save_pretrained"):
                found.add(path.name)
    assert found == allowed


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "folder", Path.rename
    write_folder(folder, {"a/b.txt": "old"}, lambda _: None)

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        write_folder(folder, {"a/b.txt": "new"}, lambda _: None)
    assert (folder / "a" / "b.txt").read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_has_become_another_stays(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        raise ArgumentError("not ours any more")

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").touch()
    with pytest.raises(ArgumentError, match="not ours any more"):
        write_folder(tmp_path / "folder", {"a.txt": "new"}, refuse)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "precious.txt"]
