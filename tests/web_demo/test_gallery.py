"""The exported page in a real browser, from file://."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from divprune.web_demo import ExportOptions, export_demo
from tests.web_demo.pages import browsing, scrolls_sideways, serious_findings, shown_tokens


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def exported(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(
        folder=tmp_path_factory.mktemp("exported") / "gallery",
        methods=("divprune", "random", "uniform"),
        keep_ratios=(0.02, 0.098, 0.25),
        max_new_tokens=8,
        device="cpu",
    )
    return export_demo(options).folder


@pytest.fixture
def visit(browser: Any, exported: Path) -> Iterator[Any]:
    asked: list[str] = []
    failed: list[str] = []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**options)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda line: failed.append(line.text) if line.type == "error" else None)
        page.goto((exported / "index.html").as_uri())
        return page

    yield opened
    assert [url for url in asked if not url.startswith((exported.as_uri(), "data:"))] == []
    assert failed == []


def test_every_choice_shows_its_own_numbers(visit: Any, exported: Path) -> None:
    page, data = visit(), json.loads((exported / "data.json").read_text(encoding="utf-8"))
    for place, scene in enumerate(data["scenes"]):
        page.get_by_role("radio").nth(place).check()
        question = scene["questions"][1]
        page.get_by_label("Question", exact=True).select_option(label=question["prompt"])
        for step, ratio in enumerate(data["keep_ratios"]):
            page.get_by_label("Keep ratio").fill(str(step))
            for method in ("random", "uniform"):
                page.get_by_label("Method B", exact=True).select_option(method)
                (run,) = (run for run in question["runs"] if run["method"] == method and run["keep_ratio"] == ratio)
                assert shown_tokens(page, 1) == scene["orders"][run["order"]]
                card = page.locator(".dp-answer").nth(2).inner_text()
                assert f"B: {method} at {ratio}" in card
                assert f"{run['num_kept']} of 256" in card
                assert run["answer"] in card


def test_it_is_used_by_keys_alone(visit: Any) -> None:
    page = visit()
    pressed = page.keyboard.press
    pressed("Tab")
    pressed("ArrowRight")
    assert page.locator("figcaption").first.inner_text() == "scene 1"
    pressed("Tab")
    pressed("Tab")
    pressed("End")
    assert page.locator("#ratio-value").inner_text() == "0.25"
    pressed("Tab")
    pressed("ArrowDown")
    pressed("Tab")
    pressed("ArrowRight")
    assert page.locator(".dp-readout").first.inner_text().startswith("pick 1 of 64: token ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_everybody_can_use_it(width: int, scheme: str, visit: Any) -> None:
    page = visit(viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert not scrolls_sideways(page)
    assert serious_findings(page) == []
    assert page.locator("img").evaluate_all("(images) => images.every((image) => image.naturalWidth > 0)")
