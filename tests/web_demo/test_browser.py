"""The page in a real browser, as a visitor uses it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from divprune.checkpoints import LoadedModel
from divprune.embedded.examples import Example
from tests.web_demo.pages import browsing, scrolls_sideways, serious_findings, served, shown_tokens
from tests.web_demo.test_session import by_prune

pytest.importorskip("gradio")

Visit = Callable[..., Any]
TIMEOUT = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(browser: Any, loaded: LoadedModel) -> Iterator[str]:
    with served(loaded) as place:
        yield place


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    """Open the page as another visitor; afterwards, no foreign host was asked and no script has failed."""
    asked: list[str] = []
    failed: list[str] = []
    contexts: list[Any] = []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda line: failed.append(line.text) if line.type == "error" else None)
        page.goto(address)
        kept(page, 0, 25)
        kept(page, 1, 25)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert failed == []


def kept(page: Any, side: int, count: int) -> None:
    """Wait until one side shows so many tokens."""
    page.locator(f".dp-overlay[data-kept='{count}']").nth(0).wait_for()
    page.wait_for_function(
        "([side, count]) => document.querySelectorAll('.dp-overlay')[side]?.dataset.kept === String(count)",
        arg=[side, count],
    )


def choose(page: Any, label: str, value: str) -> None:
    box = page.get_by_label(label)
    box.fill(value)
    box.press("Enter")


def slide(page: Any, keep_ratio: float) -> None:
    page.locator("input[type=range]").fill(str(keep_ratio))


def answers(page: Any) -> list[str]:
    """Ask, and wait for the texts of the three answers."""
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator(".dp-answer").nth(2).wait_for()
    texts: list[str] = page.locator(".dp-answer .dp-text").all_inner_texts()
    return texts


def test_sliding_redraws_both_sides_with_what_is_kept(
    visit: Visit, loaded: LoadedModel, examples: list[Example]
) -> None:
    page = visit()
    for keep_ratio, count in ((0.098, 25), (0.25, 64), (0.002, 1)):
        slide(page, keep_ratio)
        kept(page, 0, count)
        kept(page, 1, count)
        for side, method in enumerate(("divprune", "random")):
            assert shown_tokens(page, side) == by_prune(loaded, examples[0], method, keep_ratio)
    assert page.locator(".dp-count").first.inner_text() == "1 of 256 tokens kept (0.4 %)"


def test_sliding_asks_the_server_only_for_picks_that_are_not_nested(
    visit: Visit, loaded: LoadedModel, examples: list[Example]
) -> None:
    page = visit()
    choose(page, "Method B", "uniform")
    page.get_by_text("Not nested: this method is asked anew").wait_for()
    assert shown_tokens(page, 1) == by_prune(loaded, examples[0], "uniform", 0.098)
    slide(page, 0.25)
    kept(page, 0, 64)
    kept(page, 1, 64)
    assert shown_tokens(page, 1) == by_prune(loaded, examples[0], "uniform", 0.25)
    assert shown_tokens(page, 0) == by_prune(loaded, examples[0], "divprune", 0.25)


def test_an_answer_from_all_tokens_and_from_each_side(visit: Visit) -> None:
    page = visit()
    choose(page, "Question", "How many objects are there?")
    unpruned, *pruned = answers(page)
    assert unpruned == "6"
    assert len(pruned) == 2
    cards = page.locator(".dp-answer").all_inner_texts()
    assert "256 of 256" in cards[0]
    assert all("25 of 256" in card and "time to first token" in card for card in cards[1:])


def test_an_upload_and_a_broken_one(visit: Visit, photograph: Path) -> None:
    page = visit()
    page.locator("input[type=file]").set_input_files(photograph)
    page.get_by_role("alert").get_by_text("knows generated scenes only").wait_for()
    page.locator("figcaption").get_by_text("gradient.png").first.wait_for()
    kept(page, 0, 25)
    broken = photograph.with_name("broken.png")
    broken.write_bytes(b"no pixels")
    page.get_by_role("button", name="Clear").or_(page.get_by_label("Remove this file")).first.click()
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_role("alert").get_by_text("broken.png is not an image that Pillow can read").wait_for()
    assert page.locator("figcaption").first.inner_text() == "gradient.png"
    page.get_by_label("scene 2").check()
    page.locator("figcaption").get_by_text("scene 2").first.wait_for()


def test_two_visitors_at_once_do_not_mix(visit: Visit, loaded: LoadedModel, examples: list[Example]) -> None:
    first, second = visit(), visit()
    second.get_by_label("scene 1").check()
    second.locator("figcaption").get_by_text("scene 1").first.wait_for()
    for page, ratio in ((first, 0.1), (second, 0.3)):
        choose(page, "Question", "How many objects are there?")
        slide(page, ratio)
    kept(first, 0, 26)
    kept(second, 0, 77)
    # Both ask before either is answered.
    for page in (first, second):
        page.get_by_role("button", name="Answer", exact=True).click()
    texts = []
    for page in (first, second):
        page.locator(".dp-answer").nth(2).wait_for()
        texts.append(page.locator(".dp-answer").all_inner_texts())
    assert "26 of 256" in texts[0][1]
    assert "77 of 256" in texts[1][1]
    for page, example, ratio in ((first, examples[0], 0.1), (second, examples[1], 0.3)):
        assert shown_tokens(page, 0) == by_prune(loaded, example, "divprune", ratio)


def test_picks_in_their_order_by_pointer_and_by_keys(
    visit: Visit, loaded: LoadedModel, examples: list[Example]
) -> None:
    page, order = visit(), by_prune(loaded, examples[0], "divprune", 0.098)
    readout = page.locator(".dp-readout").first
    page.locator(".dp-overlay").first.locator(f".dp-patch[data-token='{order[4]}']").hover()
    assert readout.inner_text() == f"pick 5 of 25: token {order[4]} of 256"
    page.mouse.move(0, 0)
    image = page.locator(".dp-overlay svg").first
    image.focus()
    for _ in range(2):
        image.press("ArrowRight")
    assert readout.inner_text() == f"pick 2 of 25: token {order[1]} of 256"
    image.press("End")
    assert image.get_attribute("aria-valuetext") == f"pick 25 of 25: token {order[24]} of 256"


def test_what_is_copied_is_what_is_shown(visit: Visit) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as Python").first.click()
    slide(page, 0.2)
    code = page.locator(".dp-copy").first
    code.get_by_text("keep_ratio=0.2)").wait_for()
    code.get_by_role("button").click()
    code.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == code.locator("pre").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_everybody_can_use_it(width: int, scheme: str, visit: Visit) -> None:
    page = visit(viewport={"width": width, "height": 844}, color_scheme=scheme)
    answers(page)
    for title in page.get_by_role("button", name="Copy as").all():
        title.click()
    page.locator(".dp-copy").nth(3).wait_for()
    assert not scrolls_sideways(page)
    assert serious_findings(page) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red < 128) == (scheme == "dark")
