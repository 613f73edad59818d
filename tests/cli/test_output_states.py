"""Every output of every command, over everything that may be in its place: refused before any work, nothing lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from divprune.experiments import run as paper_run
from divprune.outputs import locked
from tests.support.commands import Command


@dataclass(frozen=True)
class OutputOption:
    """How a command is called with an output, and which file that is about.

    Attributes:
        call: from a folder that holds `input.png` and `questions.jsonl`, and the path, to the arguments.
        name: of the file; of a file in the folder that the option names, if `in_folder`.
    """

    call: Callable[[Path, Path], tuple[object, ...]]
    name: str
    in_folder: bool = False


RUN = ("--max-new-tokens", 2, "--repeats", 1)
FIGURE3 = ("reproduce", "figure3", "--model", "embedded", "--output")
OPTIONS = {
    "run": OutputOption(
        lambda folder, path: ("run", "--image", folder / "input.png", "--report", path, *RUN), "report.html"
    ),
    "calibrate vtw": OutputOption(
        lambda folder, path: ("calibrate", "vtw", "--image", folder / "input.png", "--output", path), "vtw.json"
    ),
    "calibrate fitprune": OutputOption(
        lambda folder, path: ("calibrate", "fitprune", "--image", folder / "input.png", "--output", path), "fp.json"
    ),
    "batch": OutputOption(
        lambda folder, path: ("batch", "m", "--input", folder / "questions.jsonl", "--output", path), "answers.jsonl"
    ),
    "bench": OutputOption(lambda folder, path: ("bench", "--output", path.parent), "bench-embedded.json", True),
    "eval": OutputOption(
        lambda folder, path: ("eval", "--limit", 1, "--output", path.parent), "eval-scenes.json", True
    ),
    "figures page": OutputOption(lambda folder, path: ("figures", "--output", path.parent), "figures.md", True),
    "figures": OutputOption(
        lambda folder, path: ("figures", "--only", "score-time", "--output", path.parent.parent),
        "score-time.png",
        True,
    ),
    "reproduce": OutputOption(lambda folder, path: (*FIGURE3, path.parent), "figure3-embedded.json", True),
    "reproduce table": OutputOption(lambda folder, path: (*FIGURE3, path.parent), "figure3-embedded.md", True),
    "reproduce figure": OutputOption(lambda folder, path: (*FIGURE3, path.parent), "figure3-embedded-tsne.png", True),
}
STATES = ("foreign", "json", "nested", "link", "directory", "loop", "input", "link to input", "hard link", "long")


@pytest.fixture
def folder(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands read; no model is ever loaded, nothing drawn or run."""
    (tmp_path / "input.png").write_bytes(picture.read_bytes())
    (tmp_path / "questions.jsonl").write_text('{"id": "1", "image": "input.png", "prompt": "What?"}', encoding="utf-8")
    for module in ("efficiency.subject", "evaluation.scenes.run", "experiments.figure_runs", "calibration.run"):
        monkeypatch.delattr(f"divprune.{module}.load_model")
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    monkeypatch.setattr("divprune.efficiency.subject.measure_variants", None)
    monkeypatch.setattr("divprune.figures.gallery.draw_figures", None)
    monkeypatch.setattr(paper_run, "run_in_harness", None)
    return tmp_path


def put_in_the_way(path: Path, state: str, source: Path) -> Path:
    """Put something in an output's place; return what must not change."""
    other = path.parent / "precious"
    if state in ("input", "hard link"):
        path.hardlink_to(source)
    elif state == "link to input":
        path.symlink_to(source)
    elif state == "directory":
        path.mkdir()
        other = path / "precious"
    elif state == "loop":
        path.symlink_to(path.name)
    content = {"json": b'{"name": "x"}', "nested": b"[" * 100_000, "link": b"precious"}.get(state, b"precious\n")
    if state in ("foreign", "json", "nested"):
        path.write_bytes(content)
        return path
    other.write_bytes(content)
    if state == "link":
        path.symlink_to("precious")
    return source if "input" in state or state == "hard link" else other


FOREIGN = ("foreign", "json", "nested", "link")
READ = ("input", "link to input", "hard link")
# By force other files are replaced; nothing that these commands read lies in a folder of records.
CASES = [
    (name, state, force)
    for name, option in OPTIONS.items()
    for state in STATES
    for force in (False, True)
    if not (force and (state in FOREIGN or (option.in_folder and state in READ)))
]


@pytest.mark.parametrize(("option", "state", "force"), CASES)
def test_what_is_in_the_way_is_refused_before_the_work_and_stays(
    divprune: Command, folder: Path, option: str, state: str, force: bool
) -> None:
    wanted = OPTIONS[option]
    place = folder / "out" / "figures" if option == "figures" else folder / "out" if wanted.in_folder else folder
    place.mkdir(exist_ok=True, parents=True)
    source = folder / ("questions.jsonl" if option == "batch" else "input.png")
    if state == "long":
        path, kept = place / ("n" * 251 + wanted.name[-5:]), source
        if wanted.in_folder:
            path = folder / ("n" * 256) / "figures" / wanted.name
    else:
        path = place / wanted.name
        kept = put_in_the_way(path, state, source)
    before, links = kept.read_bytes(), [each for each in place.rglob("*") if each.is_symlink()]
    outcome = divprune(*wanted.call(folder, path), *(["--force"] if force else []))
    assert outcome.exit_code == 2, outcome.stderr
    assert len(outcome.error) < 300
    assert outcome.error.startswith(("--report", "--output"))
    assert kept.read_bytes() == before
    assert [each for each in place.rglob("*") if each.is_symlink()] == links
    assert not list(place.rglob("*.part"))


@pytest.mark.parametrize("option", OPTIONS)
def test_by_force_another_file_is_no_hindrance(divprune: Command, folder: Path, option: str) -> None:
    wanted = OPTIONS[option]
    place = folder / "out" / "figures" if option == "figures" else folder / "out"
    place.mkdir(parents=True)
    (place / wanted.name).write_bytes(b"precious")
    outcome = divprune(*wanted.call(folder, place / wanted.name), "--force")
    # It came as far as the work, which these tests have taken away.
    assert "is there already" not in outcome.stderr
    assert (place / wanted.name).read_bytes() == b"precious"


def test_a_batch_waits_for_no_other_writer(divprune: Command, folder: Path) -> None:
    call = OPTIONS["batch"].call(folder, folder / "answers.jsonl")
    with locked("output", folder / "answers.jsonl"):
        assert "--output" in divprune(*call).error
        assert "is being written by another process" in divprune(*call).error
    assert "another process" not in divprune(*call).stderr


def test_a_model_folder_is_read(divprune: Command, llava: Path, folder: Path) -> None:
    before = (llava / "config.json").read_bytes()
    arguments = ("--model", llava, "--output", llava / "config.json", "--force")
    assert "is what the command reads" in divprune("calibrate", "vtw", *arguments).error
    assert (llava / "config.json").read_bytes() == before


@pytest.mark.slow
def test_names_that_no_terminal_shows_lose_no_work(tmp_path: Path, picture: Path) -> None:
    """Twice into one report, on an ASCII terminal, by a name that is not UTF-8 and would clear the screen."""
    image, report = tmp_path / os.fsdecode(b"caf\xe9 \x1b[2J\a.png"), tmp_path / os.fsdecode(b"r\xe9\x1b[2J\a.html")
    image.write_bytes(picture.read_bytes())
    command = ["-m", "divprune", "run", "--image", image, "--prompt", "Où est-ce ?", "--report", report, "--no-compare"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, *command, "--repeats", "1", "--max-new-tokens", "2"],
            capture_output=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout + done.stderr) & {0x1B, 0x07}
        assert rb"r\udce9\x1b[2J\x07.html" in done.stdout.replace(b"\n", b"")
        assert report.read_bytes().startswith(b"<!doctype html>")
