"""The demonstration: the embedded model on the bundled scenes, and the report as a browser shows it."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import Command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_demonstration(divprune: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    outcome = divprune("run", "--repeats", 1, "--max-new-tokens", 8, "--json", "--report", report)
    assert outcome.exit_code == 0, outcome.stderr
    scenes = {row["images"][0]: row for row in outcome.json["rows"]}.values()
    # One drawing a scene, for each of the numbers of tokens that it can be switched to.
    kept = [round(ratio * row["num_visual_tokens"]) for row in scenes for ratio in (0.05, 0.098, 0.25)]
    html = report.read_text()
    assert html.count('class="kept"') == sum(kept)
    assert html.count("data:image/png;base64,") == len(scenes)
    assert "25 random" in html
    assert "M parameters hides the gain" in html
    assert "20th" not in html  # of one run
    assert {row["answer_random"] is not None for row in outcome.json["rows"]} == {True}
    assert outcome.json["model"] == "embedded"
    for row in outcome.json["rows"]:
        assert row["images"][0].startswith("scene ")
        assert row["answer_unpruned"]
        assert row["answer"]
        assert len(row["kept_indices"]) == row["num_kept"] == round(0.098 * row["num_visual_tokens"])
    assert "random ones." in outcome.stderr


def test_photograph_for_the_embedded_model_gets_a_note(divprune: Command, picture: Path) -> None:
    outcome = divprune("run", "--image", picture, "--repeats", 1, "--max-new-tokens", 4)
    assert outcome.exit_code == 0
    assert "knows generated scenes only" in outcome.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_browser_shows_kept_patches_bright_and_the_rest_dim(
    divprune: Command, llava: Path, picture: Path, tmp_path: Path
) -> None:
    arguments = ("--image", picture, "--num-keep", 4, "--report", tmp_path / "report.html")
    assert divprune("run", "--model", llava, *arguments, "--repeats", 1, "--max-new-tokens", 2).exit_code == 0
    html = (tmp_path / "report.html").read_text()
    drawing, style = re.search(r"<svg.*?</svg>", html, re.S), re.search(r"<style>.*?</style>", html, re.S)
    assert drawing is not None
    assert style is not None
    page = (
        f"{style[0]}<style>body {{ margin: 0; padding: 0; max-width: none }} svg {{ width: 451px !important }}</style>"
    )
    (tmp_path / "drawing.html").write_text(f"<!doctype html>{page}{drawing[0]}")
    shown = screenshot(tmp_path / "drawing.html", tmp_path / "drawing.png", (451, 300))
    original = Image.open(picture).convert("RGB")
    holes = re.findall(r'class="hole".*?x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawing[0])
    boxes = [(float(x), float(y), float(x) + float(w), float(y) + float(h)) for x, y, w, h in holes]
    assert len(boxes) == 4
    for x in range(5, 451, 25):
        for y in range(5, 300, 25):
            edge = min(
                min(abs(x - left), abs(x - right), abs(y - top), abs(y - bottom)) for left, top, right, bottom in boxes
            )
            corner = min(x, 451 - x) < 12 and min(y, 300 - y) < 12
            if edge < 3 or corner:
                continue
            kept = any(left < x < right and top < y < bottom for left, top, right, bottom in boxes)
            before, after = (sum(image.getpixel((x, y))) for image in (original, shown))
            assert (after > 0.9 * before - 9) if kept else (after < 0.5 * before + 9), (x, y)


SWITCHING = """
const result = [];
const press = (key) =>
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const isShown = (part) => getComputedStyle(part).display !== "none";
const overlays = [...document.querySelectorAll(".overlay")];
const views = () => overlays.filter(isShown).map((part) => part.dataset.view);
result.push(["at first", views()]);
document.querySelector("[name=view][value='2']").click();
result.push(["switched", views(), [...document.querySelectorAll("figcaption span")].filter(isShown).length]);
document.getElementById("plain").click();
result.push(["plain", views()]);
document.getElementById("plain").click();
document.querySelector("[data-view='2'] .kept[tabindex='0']").focus();
press("ArrowRight"); press("ArrowRight"); press("ArrowLeft");
result.push(["keys", document.activeElement.getAttribute("aria-label")]);
press("End");
result.push(["end", document.activeElement.dataset.pick]);
result.push(["stops", document.querySelectorAll("[data-view='2'] .kept[tabindex='0']").length]);
document.title = JSON.stringify(result);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_browser_switches_numbers_of_tokens_and_is_reached_by_keys(
    divprune: Command, llava: Path, picture: Path, tmp_path: Path
) -> None:
    arguments = (
        "--image",
        picture,
        "--num-keep",
        4,
        "--report-ratios",
        "0.5 0.75",
        "--report",
        tmp_path / "report.html",
    )
    assert divprune("run", "--model", llava, *arguments, "--repeats", 1, "--max-new-tokens", 2).exit_code == 0
    html = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").write_text(html.replace("</body>", f"<script>{SWITCHING}</script></body>"))
    dumped = chromium(tmp_path, "--dump-dom", (tmp_path / "report.html").as_uri()).stdout.decode()
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", dumped)[1]))  # type: ignore[index]
    assert found == [
        ["at first", ["0"]],
        ["switched", ["2"], 1],
        ["plain", []],
        ["keys", found[3][1]],
        ["end", "12"],
        ["stops", 1],
    ]
    assert found[3][1].startswith("pick 2 of 12, token ")


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = [str(CHROMIUM), *flags.split(), "--disable-component-update", "--hide-scrollbars"]
    command.append(f"--user-data-dir={folder / 'profile'}")
    return subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=120)


def screenshot(page: Path, image: Path, size: tuple[int, int]) -> Image.Image:
    chromium(image.parent, f"--window-size={size[0]},{size[1]}", f"--screenshot={image}", page.as_uri())
    return Image.open(image).convert("RGB")
