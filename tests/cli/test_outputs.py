"""Where commands write: never over what they read, nor over what another program wrote."""

from pathlib import Path

import pytest
from PIL import Image

from divprune.errors import ArgumentError
from divprune.experiments import run as paper_run
from divprune.records import Record
from tests.support.commands import Command

SHORT = ("--max-new-tokens", 2, "--repeats", 1)


@pytest.fixture
def mine(tmp_path: Path, picture: Path) -> Path:
    """A photograph that there is no second copy of, as far as the commands know."""
    path = tmp_path / "mine.png"
    path.write_bytes(picture.read_bytes())
    return path


def by_another_name(path: Path, name: str) -> Path:
    """The same file: by another spelling, or through a link that is called a report."""
    other = path.parent / "report.html"
    if name == "symlink":
        other.symlink_to(path)
    elif name == "hard link":
        other.hardlink_to(path)
    return {"itself": path, "spelling": path.parent / ".." / path.parent.name / path.name}.get(name, other)


@pytest.mark.parametrize("name", ["itself", "spelling", "symlink", "hard link"])
@pytest.mark.parametrize("option", ["--image", "--video"])
def test_a_report_never_replaces_what_it_is_about(
    divprune: Command, mine: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    before = mine.read_bytes()
    outcome = divprune("run", option, mine, "--report", by_another_name(mine, name), *SHORT)
    assert outcome.exit_code == 2
    assert "is what the command reads; name another file, such as report.html" in outcome.error
    assert mine.read_bytes() == before


@pytest.mark.parametrize("kind", ["symlink", "spelling"])
def test_the_image_may_be_the_one_with_another_name(
    divprune: Command, mine: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    page = mine.rename(mine.with_name("mine.html"))
    outcome = divprune("run", "--image", by_another_name(page, kind), "--report", page, *SHORT)
    assert "is what the command reads" in outcome.error


@pytest.mark.parametrize("name", ["other.png", "report", "report.json", "report.html.bak"])
def test_a_report_is_called_html(divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    outcome = divprune("run", "--report", tmp_path / name)
    assert outcome.exit_code == 2
    assert f"{name} must end in .html, such as report.html" in outcome.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "<!doctype html>\n<html><head><title>My thesis</title></head></html>",
        "<!doctype html>\n<html><head><title>divprune: my notes</title></head></html>",
        "\x89PNG\r\n",
        " ",
    ],
)
def test_a_page_of_another_program_is_left_as_it_is(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    page = tmp_path / "page.html"
    page.write_bytes(content.encode("latin-1"))
    outcome = divprune("run", "--report", page)
    assert outcome.exit_code == 2
    assert "is there already and is no report of `divprune run`; name another place, move it away, " in outcome.error
    assert "or replace it by --force" in outcome.error
    assert page.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize("name", ["report.html", "REPORT.HTM"])
def test_a_report_replaces_an_earlier_one(
    divprune: Command, llava: Path, mine: Path, tmp_path: Path, name: str
) -> None:
    report, pages = tmp_path / name, []
    report.touch()
    for prompt in ("What?", "Where?"):
        arguments = ("--image", mine, "--num-keep", 3, "--prompt", prompt, "--report", report)
        outcome = divprune("run", "--model", llava, *arguments, *SHORT)
        assert outcome.exit_code == 0, outcome.stderr
        pages.append(report.read_text(encoding="utf-8"))
    assert "Where?" in pages[1]
    assert "Where?" not in pages[0]


@pytest.mark.parametrize("command", ["vtw", "fitprune"])
@pytest.mark.parametrize("content", ['{"model_type": "llava"}', "precious"])
def test_a_calibration_replaces_calibrations_only(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, content: str
) -> None:
    monkeypatch.delattr("divprune.calibration.run.load_model")
    output = tmp_path / "config.json"
    output.write_text(content, encoding="utf-8")
    outcome = divprune("calibrate", command, "--output", output)
    assert outcome.exit_code == 2
    assert "is there already and is no" in outcome.error
    assert output.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_calibration_never_replaces_its_images(
    divprune: Command, mine: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool
) -> None:
    monkeypatch.delattr("divprune.calibration.run.load_model")
    before = mine.read_bytes()
    outcome = divprune("calibrate", "vtw", "--image", mine.parent if is_folder else mine, "--output", mine)
    assert outcome.exit_code == 2
    assert "is what the command reads; name another file, such as calibration.json" in outcome.error
    assert mine.read_bytes() == before


def test_a_record_replaces_records_only(tmp_path: Path) -> None:
    record = Record("speed", {}, [{"seconds": 1.0}])
    path = record.save(tmp_path)
    record.save(tmp_path)
    for content in ("precious", "[]", '{"format": 1}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ArgumentError, match=r"speed\.json is there already and is no result record; "):
            record.save(tmp_path)
        assert path.read_text(encoding="utf-8") == content
    path.write_text('{"format": 0, "name": "speed", "rows": []}', encoding="utf-8")
    record.save(tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bench-embedded.json", ("bench",)),
        ("eval-scenes.json", ("eval", "--limit", 1)),
        ("figure3-embedded.json", ("reproduce", "figure3", "--model", "embedded", "--no-resume")),
        ("figure3-embedded.md", ("reproduce", "figure3", "--model", "embedded")),
        ("figure3-embedded-tsne.png", ("reproduce", "figure3", "--model", "embedded")),
        ("figure3-embedded-max-min.svg", ("reproduce", "figure3", "--model", "embedded")),
    ],
)
def test_files_in_the_folder_of_records_are_looked_at_before_anything_is_run(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[object, ...]
) -> None:
    for module in ("efficiency.subject", "evaluation.scenes.run", "experiments.figure_runs"):
        monkeypatch.delattr(f"divprune.{module}.load_model")
    monkeypatch.setattr("divprune.efficiency.subject.measure_variants", None)
    (tmp_path / name).write_text("precious", encoding="utf-8")
    outcome = divprune(*arguments, "--output", tmp_path)
    assert outcome.exit_code == 2
    assert f"{name} is there already and is no" in outcome.error
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_images_of_a_figure_lie_in_another_folder_than_its_drawings(
    divprune: Command, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("divprune.experiments.figure_runs.load_model")
    monkeypatch.setattr(paper_run, "run_in_harness", None)
    figure = ("reproduce", "figure3", "--model", "embedded", "--output", mine.parent)
    outcome = divprune(*figure, "--images", mine.parent / ".." / mine.parent.name)
    assert outcome.exit_code == 2
    assert "is what --images reads; name another folder" in outcome.error
    drawing = mine.rename(mine.with_name("figure3-embedded-tsne.png"))
    outcome = divprune(*figure, "--images", drawing)
    assert "is what the command reads" in outcome.error
    assert [path.name for path in mine.parent.iterdir()] == [drawing.name]


@pytest.mark.parametrize("name", ["figures.md", "figures/selection-time.png", "figures/selection-time.svg"])
def test_figures_replace_figures_only(divprune: Command, records: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "docs" / name
    path.parent.mkdir(parents=True)
    if path.suffix == ".png":
        Image.new("RGB", (4, 4)).save(path)
    else:
        path.write_text("# My own", encoding="utf-8")
    before = path.read_bytes()
    outcome = divprune("figures", "--results", records, "--output", tmp_path / "docs")
    assert outcome.exit_code == 2
    assert f"{Path(name).name} is there already and is no" in outcome.error
    assert path.read_bytes() == before
    assert [each for each in (tmp_path / "docs").rglob("*") if each.is_file()] == [path]
