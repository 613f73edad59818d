"""Outputs never destroy what a user has: inputs under any name, and files that divprune did not write."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "mine.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


@pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link", "other spelling"])
def test_an_output_is_never_an_input(divprune: Command, photograph: Path, kind: str) -> None:
    output = photograph.with_name("report.html")
    if kind == "symbolic link":
        output.symlink_to(photograph)
    elif kind == "hard link":
        os.link(photograph, output)
    else:
        output = photograph if kind == "itself" else photograph.parent / ".." / photograph.parent.name / "mine.png"
    before = photograph.read_bytes()
    for outcome in (
        divprune("run", "--image", photograph, "--report", output),
        divprune("batch", "some/model", "--input", photograph.parent, "--prompt", "What?", "--output", output),
    ):
        assert outcome.exit_code == 2
        assert "is a file that this command reads" in outcome.error
    assert divprune("calibrate", "vtw", "--image", photograph, "--output", output).exit_code == 2
    assert photograph.read_bytes() == before


@pytest.mark.parametrize("content", ['{"image": "mine.png", "prompt": "What?"}', '{"image": "mine.png"}\n' * 2])
def test_a_batch_leaves_its_questions_alone(divprune: Command, photograph: Path, content: str) -> None:
    source = photograph.with_name("questions.jsonl")
    source.write_text(content, encoding="utf-8")
    outcome = divprune("batch", "some/model", "--input", source, "--prompt", "What?", "--output", source)
    assert outcome.exit_code == 2
    assert "is a file that this command reads" in outcome.error
    assert source.read_text(encoding="utf-8") == content


def test_a_batch_leaves_other_files_alone(divprune: Command, photograph: Path) -> None:
    precious = photograph.with_name("precious.json")
    precious.write_text('{"my": "only copy"}', encoding="utf-8")
    arguments = ("batch", "some/model", "--input", photograph.parent, "--prompt", "What?", "--output", precious)
    outcome = divprune(*arguments)
    assert (outcome.exit_code, precious.read_text(encoding="utf-8")) == (2, '{"my": "only copy"}')
    assert "holds something else than answers of this command" in outcome.error


@pytest.mark.parametrize("command", [("run", "--report"), ("calibrate", "vtw", "--samples", 1, "--output")])
def test_a_file_of_somebody_else_is_not_replaced(divprune: Command, tmp_path: Path, command: tuple[str, ...]) -> None:
    page = tmp_path / "index.html"
    page.write_text("<!doctype html><title>my page</title>", encoding="utf-8")
    outcome = divprune(*command, page)
    assert outcome.exit_code == 2
    assert "was not written by divprune; name another file" in outcome.error
    assert page.read_text(encoding="utf-8") == "<!doctype html><title>my page</title>"


def test_files_of_ours_are_replaced(divprune: Command, tmp_path: Path) -> None:
    for command in (("run", "--report"), ("calibrate", "vtw", "--samples", 1, "--threshold", 9, "--output")):
        output = tmp_path / f"{command[0]}.out"
        for _ in range(2):
            assert divprune(*command, output).exit_code == 0
