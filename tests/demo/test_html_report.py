"""The HTML report: complete, self-contained, and written whole or not at all."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support import checkpoint_writers
from tests.support.commands import Command

SHORT = ("--max-new-tokens", 4, "--repeats", 1)


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


@pytest.fixture
def page(divprune: Command, llava: Path, picture: Path, tmp_path: Path) -> Page:
    arguments = ("--image", picture, "--image", picture, "--num-keep", 5, "--report", tmp_path / "report.html")
    outcome = divprune("run", "--model", llava, *arguments, "--prompt", "What is <b>this?", *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    return Page((tmp_path / "report.html").read_text())


def test_every_kept_token_is_a_patch_with_its_pick_number(page: Page) -> None:
    patches = page.all("g", class_="kept")
    assert len(patches) == len(page.all("rect", class_="hole")) == 2 * 5  # two pictures
    assert sorted(int(patch["data-pick"]) for patch in patches) == sorted([1, 2, 3, 4, 5] * 2)
    assert len({patch["data-token"] for patch in patches}) == 5
    assert re.findall(r"pick (\d) of 5", page.text)


def test_patches_lie_inside_the_picture(page: Page) -> None:
    for view in page.all("svg"):
        assert view["viewbox"] == "0 0 451 300"
    for hole in page.all("rect", class_="hole"):
        left, top, width, height = (float(hole[name]) for name in ("x", "y", "width", "height"))
        assert width > 0
        assert height > 0
        assert 0 <= left <= left + width <= 451.01
        assert 0 <= top <= top + height <= 300.01


def test_question_answers_and_numbers_are_there(page: Page) -> None:
    assert "What is <b>this?" in page.text
    assert not page.all("b", text="this?")
    for phrase in ("5 of 16 tokens kept", "32 → 10", "prefill", "selection", "num_keep 5"):
        assert phrase in page.text


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_clip_shows_every_sampled_frame(divprune: Command, checkpoints: Path, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    model = checkpoint_writers.write_llava_next_video(checkpoints / "video")
    arguments = ("--video", clip, "--num-frames", 4, "--keep-ratio", 0.5, "--report", tmp_path / "report.html")
    outcome = divprune("run", "--model", model, *arguments, *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.all("figure")) == 4
    assert len(page.all("g", class_="kept")) == 8
    assert "frame 4 of 30" in page.text


def test_merged_frames_show_the_same_tokens(divprune: Command, checkpoints: Path, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    model = checkpoint_writers.write_qwen2_5_vl(checkpoints / "merged")
    arguments = ("--video", clip, "--num-frames", 4, "--num-keep", 6, "--report", tmp_path / "report.html")
    outcome = divprune("run", "--model", model, *arguments, *SHORT)
    assert outcome.exit_code == 0, outcome.stderr
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.all("g", class_="kept")) == 2 * 6
    assert page.text.count("same tokens as the frame before") == 2


def test_newline_tokens_are_counted_but_not_drawn(
    divprune: Command, checkpoints: Path, picture: Path, tmp_path: Path
) -> None:
    model = checkpoint_writers.write_llava_next_video(checkpoints / "newlines")
    arguments = ("--image", picture, "--keep-ratio", 1, "--report", tmp_path / "report.html", "--json")
    outcome = divprune("run", "--model", model, *arguments, *SHORT)
    (row,) = outcome.json["rows"]
    page = Page((tmp_path / "report.html").read_text())
    (newlines,) = re.findall(r"(\d+) of them mark line ends", page.text)
    assert len(page.all("g", class_="kept")) + int(newlines) == row["num_kept"]
    assert int(newlines) > 0


def test_failed_report_leaves_the_old_file(
    divprune: Command, llava: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.html"
    old = "<!doctype html>\n<title>divprune: 16 → 2 visual tokens</title>"
    report.write_text(old)

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("no drawing today")

    monkeypatch.setattr("divprune.demo.html_report.draw_media", fail)
    outcome = divprune("run", "--model", llava, "--image", picture, "--report", report, *SHORT)
    assert outcome.exit_code == 1
    assert report.read_text() == old
    assert os.listdir(tmp_path) == ["report.html"]
