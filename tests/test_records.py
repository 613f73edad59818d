"""Records are written whole, read back equal, and refused if they are something else."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

import divprune.records as records
from divprune.errors import RecordError
from divprune.outputs import write_whole
from divprune.records import Record, load_record, quantiles


def record() -> Record:
    return Record("speed", {"repeats": 3}, [{"tokens": 576, "median_seconds": 0.25}])


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    original = record()
    path = original.save(tmp_path)
    assert path.name == "speed.json"
    assert load_record(path) == original
    assert {"date", "git_revision", "git_dirty", "versions", "machine"} == original.provenance.keys()
    assert original.provenance["machine"]["num_cores"] > 0


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2", "AVX2"), ("fpu avx2 amx_tile", "AVX2 AMX"), (None, "AVX2")]
)
def test_a_record_says_which_instructions_the_processor_has(
    flags: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: A Processor\nflags\t\t: {flags}\n")
    monkeypatch.setattr(records, "Path", lambda name: cpuinfo)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert records._machine()["capability"] == expected
    if flags is not None:
        assert records._machine()["processor"] == "A Processor"


def test_a_record_names_no_path_and_no_host(tmp_path: Path) -> None:
    import platform

    text = record().save(tmp_path).read_text()
    assert str(Path.home()) not in text
    assert str(Path(records.__file__).parent.parent) not in text
    assert platform.node() not in text or not platform.node()


def test_outside_a_checkout_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert records.provenance()["git_revision"] is None


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("place", [".", "environment/site-packages"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_only_our_own_checkout_has_a_revision_and_its_hooks_do_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool, place: str, elsewhere: bool
) -> None:
    root, ran = tmp_path / "repository", tmp_path / "ran"
    (root / place).mkdir(parents=True)
    (root / "pyproject.toml").write_text(f'[project]\nname = "{"divprune" if is_ours else "other"}"\n')
    hook = tmp_path / "hooks" / "post-index-change"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    for setting in (("core.fsmonitor", str(hook)), ("core.hooksPath", str(hook.parent))):
        subprocess.run([*git, "config", *setting], check=True)
    (root / "pyproject.toml").touch()
    if elsewhere:
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(records, "_ROOT", root / place)
    found = records.provenance()
    assert found["git_revision"] == (revision if is_ours and place == "." else None)
    assert found["git_dirty"] is False
    assert not ran.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "format 1"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1, "name": "x"}', r"must hold \['config', 'name', 'provenance', 'rows'\], got \['name'\]"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        load_record(path)


def test_numbers_that_are_none_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Record("bad", {}, [{"seconds": float("nan")}]).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "speed.json"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_quantiles_interpolate() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == {"p20_seconds": 1.4, "median_seconds": 2.0, "p80_seconds": 2.6}
    assert quantiles([5.0], "encode_") == dict.fromkeys(
        ("encode_p20_seconds", "encode_median_seconds", "encode_p80_seconds"), 5.0
    )
    assert json.dumps(quantiles([1, 2]))


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.html"
    write_whole(report, "old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(report, "new")
    assert report.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_report_can_be_read_by_others(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    before = os.umask(0o022)
    try:
        write_whole(report, "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE(report.stat().st_mode) == 0o644
    report.chmod(0o600)
    write_whole(report, "private")
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
