"""`divprune figures` writes pictures and a page from records, and tells in one line what it lacks."""

import sys
from pathlib import Path

import pytest

from divprune.figures import FIGURES
from tests.support.commands import Command


def test_files_are_written_and_named(divprune: Command, records: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "page"
    outcome = divprune("figures", "--results", records, "--output", output, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 1
    written = sorted((path for path in output.rglob("*") if path.is_file()), key=lambda path: path.name)
    assert set(map(Path, outcome.json["files"])) == set(written)
    assert [path.name for path in written] == [
        "figures.md",
        "selection-time-dark.png",
        "selection-time-dark.svg",
        "selection-time.png",
        "selection-time.svg",
    ]
    assert len(outcome.json["missing"]) == len(FIGURES) - 1
    assert {"figure": "score-flops", "records": ["eval-scenes"]} in outcome.json["missing"]
    assert "score-flops is not drawn: there is no" in outcome.stderr
    assert "which `divprune eval --suite scenes` writes" in outcome.stderr


def test_without_json_the_files_are_listed(divprune: Command, records: Path, tmp_path: Path) -> None:
    outcome = divprune("figures", "--results", records, "--output", tmp_path)
    assert "selection-time.svg" in outcome.stdout.replace("\n", "")


def test_one_figure_leaves_the_page_as_it_is(divprune: Command, records: Path, tmp_path: Path) -> None:
    (tmp_path / "figures.md").write_text("mine")
    outcome = divprune("figures", "--results", records, "--output", tmp_path, "--only", "selection-time", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.json["files"]) == 4
    assert outcome.json["missing"] == []
    assert (tmp_path / "figures.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "selection-tim"), "did you mean 'selection-time'?"),
        (("--only", "selection-time", "--only", "prefill"), "prefill cannot be drawn: there is no"),
        (("--results", "no/such/folder"), "--results no/such/folder is no directory"),
    ],
)
def test_mistakes_are_told_in_one_line(
    divprune: Command, records: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = divprune("figures", "--results", records, "--output", tmp_path / "page", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert not (tmp_path / "page").exists()


def test_no_record_at_all_is_an_error(divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("figures", "--results", tmp_path, "--output", tmp_path)
    assert outcome.exit_code == 2
    assert "answers cannot be drawn" in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_a_broken_record_stops_before_anything_is_written(divprune: Command, records: Path, tmp_path: Path) -> None:
    (records / "samples.json").write_text("[]")
    outcome = divprune("figures", "--results", records, "--output", tmp_path / "page")
    assert outcome.exit_code == 2
    assert "samples.json must be a result record" in outcome.error
    assert not (tmp_path / "page").exists()


def test_an_output_that_is_a_file_is_refused(divprune: Command, records: Path, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("")
    outcome = divprune("figures", "--results", records, "--output", tmp_path / "page")
    assert outcome.exit_code == 2
    assert f"--output {tmp_path / 'page' / 'figures'}: no such folder can be made" in outcome.error


def test_without_matplotlib_the_extra_is_named(
    divprune: Command, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = divprune("figures", "--results", records, "--output", tmp_path)
    assert outcome.exit_code == 2
    assert outcome.error == "figures need matplotlib: pip install 'divprune[viz]'"
