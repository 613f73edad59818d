"""Images by URL, by page and of odd kinds on the command line: what is said of them, and what is refused."""

import base64
import json
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from divprune.serving.engine import EngineSettings, PrunedEngine
from divprune.serving.questions import read_questions
from tests.media.makers import write_video
from tests.support import checkpoint_writers
from tests.support.commands import Command

QUICK = ("--no-compare", "--repeats", 1, "--max-new-tokens", 1, "--num-keep", 4)
MOST_SHOWN = 100  # characters of a URL


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    path = tmp_path / "pages.tiff"
    Image.new("RGB", (64, 64), "red").save(path, save_all=True, append_images=[Image.new("RGB", (64, 64), "blue")])
    return path


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A data: URL of more than 30 kB, with slashes that a path would not keep."""
    Image.effect_noise((180, 180), 100).save(tmp_path / "noise.png")
    content = base64.b64encode((tmp_path / "noise.png").read_bytes()).decode()
    assert "//" in content
    return f"data:image/png;base64,{content}"


def test_an_image_by_data_url_is_asked_about_and_never_shown_whole(divprune: Command, url: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    outcome = divprune("run", "--image", url, "--report", report, "--json", *QUICK)
    assert outcome.exit_code == 0, outcome.stderr
    (name,) = outcome.json["rows"][0]["images"]
    assert url.startswith(name.removesuffix("..."))
    said = outcome.stdout + outcome.stderr + report.read_text(encoding="utf-8")
    assert url[: MOST_SHOWN + 1] not in said.replace("\n", "")


@pytest.mark.parametrize("command", [("run",), ("bench", "--no-memory"), ("calibrate", "vtw", "--output", "o.json")])
def test_a_wrong_url_is_refused_in_a_line(divprune: Command, url: str, command: tuple[str, ...]) -> None:
    for image, reason in (
        (url[:-5] + "*", "is not base64"),
        (url.replace(",", ";"), "there is no comma"),
        (f"https://example.org/{'a' * 3000}.png", "is not downloaded unless --allow-download is given"),
    ):
        outcome = divprune(*command, "--image", image)
        assert outcome.exit_code == 2
        assert reason in outcome.error
        assert len(outcome.error) < 300
        assert image[: MOST_SHOWN + 1] not in outcome.error


def test_the_first_page_is_said_and_another_is_chosen(divprune: Command, pages: Path) -> None:
    outcome = divprune("run", "--image", pages, *QUICK)
    assert outcome.exit_code == 0, outcome.stderr
    assert f"note: {pages} holds 2 pages or frames; the first is used, another by --page" in outcome.stderr
    assert "pages or frames" not in divprune("run", "--image", pages, "--page", 2, *QUICK).stderr
    outcome = divprune("bench", "--no-memory", "--image", pages, "--page", 3)
    assert (outcome.exit_code, outcome.error) == (2, f"--page must be from 1 to 2 for {pages}, got 3")


def test_a_cut_video_is_answered_about_and_said(divprune: Command, tmp_path: Path, checkpoints: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", [Fraction(index, 25) for index in range(50)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    model = checkpoint_writers.write_qwen2_5_vl(checkpoints / "qwen of a cut video")
    outcome = divprune("run", "--model", model, "--video", cut, "--num-frames", 2, *QUICK)
    assert outcome.exit_code == 0, outcome.stderr
    assert f"note: {cut} is cut off or damaged: the first" in outcome.stderr


def test_a_batch_takes_data_urls_and_downloads_nothing(tmp_path: Path, url: str, pages: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"images": [url, pages.name], "prompt": "A?"}), encoding="utf-8")
    (question,) = read_questions(questions, None)
    assert question.images == (url, pages)
    engine = object.__new__(PrunedEngine)
    engine._settings = EngineSettings("m", "divprune", 0.1, None, 8, 0.0)
    asked = []
    engine._outputs = lambda messages, errors: asked.append(messages) or {}  # type: ignore[method-assign]
    (answer,) = engine.answer([question])
    assert [len(message[0]["content"]) for message in asked[0].values()] == [3]
    assert len(answer.images[0]) <= MOST_SHOWN
    assert answer.note == f"{pages} holds 2 pages or frames; the first is used, another by `page`"
    questions.write_text(json.dumps({"image": "https://example.org/" + "a" * 3000, "prompt": "A?"}), encoding="utf-8")
    with pytest.raises(ValueError, match="images are not downloaded here") as refusal:
        read_questions(questions, None)
    assert len(str(refusal.value)) < 300 + len(str(questions))


def test_a_batch_holds_no_more_pixels_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (100, 100)).save(folder / f"{number}.png")
    monkeypatch.setattr("divprune.serving.engine.MAX_PIXELS_AT_ONCE", 25_000)
    engine = object.__new__(PrunedEngine)
    engine._settings = EngineSettings("m", "divprune", 0.1, None, 8, 0.0)
    sizes = []
    engine._outputs = lambda messages, errors: sizes.append(len(messages)) or {}  # type: ignore[method-assign]
    assert [answer.id for answer in engine.answer(read_questions(folder, "A?"))] == [f"{each}.png" for each in range(7)]
    assert sizes == [3, 3, 1]
