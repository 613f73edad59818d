"""The page without a browser: what its events answer, and what is served."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from divprune.checkpoints import LoadedModel
from divprune.errors import DivpruneError
from divprune.web_demo import WebDemoOptions
from divprune.web_demo.page import DemoPage
from divprune.web_demo.page_layout import IDLE_SECONDS
from divprune.web_demo.shared_model import SharedModel
from divprune.web_demo.usable_methods import usable_methods
from tests.web_demo.pages import OPTIONS, served

pytest.importorskip("gradio")

AB = ("divprune", "random")


@pytest.fixture
def page(shared: SharedModel) -> DemoPage:
    return DemoPage(shared, OPTIONS, usable_methods(shared.loaded))


def begun(page: DemoPage) -> Any:
    return page.show_scene("scene 1", *AB, 0.098)[page.parts.session]


def test_a_scene_comes_with_its_questions_overlays_and_snippets(page: DemoPage) -> None:
    parts, updates = page.parts, page.show_scene("scene 1", *AB, 0.098)
    assert updates[parts.scene] == "scene 1"
    assert len(updates[parts.question].choices) >= 4
    assert updates[parts.message] == ""
    for overlay, spec in zip(parts.overlays, AB, strict=True):
        assert f"&quot;method&quot;:&quot;{spec}&quot;" in updates[overlay]
    for program, command, spec in zip(parts.programs, parts.commands, AB, strict=True):
        assert f"prune(loaded.model, &#x27;{spec}&#x27;, keep_ratio=0.098)" in updates[program]
        assert f"--method {spec} --keep-ratio 0.098" in updates[command]


def test_the_right_answer_is_told_where_it_is_known(page: DemoPage) -> None:
    visit = begun(page)
    prompt = "How many objects are there?"
    own = page.answer(visit, visit.session.example.prompt, *AB, 0.098)[page.parts.answers]
    assert "Right: <b>" in own
    assert own.count('<section class="dp-answer">') == 3
    for words in ("unpruned", "A: divprune at 0.098", "B: random at 0.098", "25 of 256", "256 of 256", "KiB", "MiB"):
        assert words in own
    assert "Right" not in page.answer(visit, f"{prompt} Really?", *AB, 0.098)[page.parts.answers]


def test_the_slider_asks_for_what_the_browser_cannot_cut(page: DemoPage) -> None:
    parts, visit = page.parts, begun(page)
    updates = page.settle(visit, "divprune", "uniform", 0.2)
    assert parts.overlays[0] not in updates
    assert "keep_ratio=0.2" in updates[parts.programs[0]]
    assert "&quot;nested&quot;:false" in updates[parts.overlays[1]]


def test_what_cannot_be_served_says_so(page: DemoPage) -> None:
    shown = page.change_method(begun(page), 1, "fastv", 0.2)[page.parts.commands[1]]
    assert "acts inside the LLM" in shown
    assert "divprune serve" not in shown


@pytest.mark.parametrize(("name", "words"), [("words.png", "is not an image"), ("words.mp4", "is not a video")])
def test_a_broken_upload_is_a_message_and_the_image_stays(
    name: str, words: str, page: DemoPage, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"<script>alert(1)</script>")
    updates = page.show_upload(str(tmp_path / name), *AB, 0.098)
    assert updates.keys() == {page.parts.message}
    assert f"{name} {words}" in updates[page.parts.message]


def test_an_upload_is_shown_with_a_note_on_the_embedded_model(page: DemoPage, photograph: Path) -> None:
    parts, updates = page.parts, page.show_upload(str(photograph), *AB, 0.098)
    assert updates[parts.scene] is None
    assert "knows generated scenes only" in updates[parts.message]
    assert "load_image(&#x27;gradient.png&#x27;)" in updates[parts.programs[0]]
    assert str(photograph.parent) not in "".join(map(str, updates.values()))


def test_names_of_files_and_questions_cannot_write_html(page: DemoPage, photograph: Path) -> None:
    path = photograph.rename(photograph.with_name("<img src=x onerror=alert(1)>.png"))
    updates = page.show_upload(str(path), *AB, 0.098)
    visit = updates[page.parts.session]
    updates |= page.answer(visit, "<b onclick=alert(1)>?", *AB, 0.098)
    shown = "".join(each for each in updates.values() if isinstance(each, str))
    assert "<img" not in shown
    assert "<b onclick" not in shown


def test_mistakes_are_messages(page: DemoPage) -> None:
    visit, message = begun(page), page.parts.message
    assert "ask something" in page.answer(visit, " ", *AB, 0.1)[message]
    assert page.answer(visit, "What?", "divprune", "evs", 0.1)[page.parts.answers] == ""
    assert "idle for too long" in page.answer(None, "What?", *AB, 0.1)[message]
    assert page.change_method(visit, 0, "divprune", 0.1)[message] == ""


@pytest.mark.parametrize(("spec", "words"), [("divprun", "did you mean"), ("evs", "compares the frames of a video")])
def test_no_other_picks_stand_under_the_name_of_a_method_that_fails(spec: str, words: str, page: DemoPage) -> None:
    parts, visit = page.parts, begun(page)
    changed = page.change_method(visit, 1, spec, 0.1)
    assert words in changed[parts.overlays[1]]
    moved = page.settle(visit, "random", spec, 0.2)
    for updates in (changed, moved):
        assert "dp-overlay" not in updates.get(parts.overlays[1], "")
        assert updates[parts.programs[1]] == updates[parts.commands[1]] == ""


def test_a_method_that_cannot_prune_the_model_is_refused_before_the_page_is_served(loaded: LoadedModel) -> None:
    from divprune.web_demo.server import demo_app

    with pytest.raises(DivpruneError, match="vidcom2"):
        demo_app(WebDemoOptions(methods=("divprune", "vidcom2")), loaded)


def test_nothing_is_told_to_anybody(page: DemoPage) -> None:
    assert page.blocks.analytics_enabled is False
    assert page.blocks.delete_cache == (IDLE_SECONDS, IDLE_SECONDS)
    assert page.parts.session.time_to_live == IDLE_SECONDS


@pytest.fixture(scope="module")
def address(loaded: LoadedModel) -> Iterator[str]:
    with served(loaded) as place:
        yield place


def fetched(url: str) -> tuple[str, Any]:
    with urllib.request.urlopen(url) as response:
        return response.read().decode(), response.headers


def test_the_page_names_no_foreign_script_style_or_font(address: str) -> None:
    page, headers = fetched(address)
    loading = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']([^\"']+)", page)
    assert loading
    assert not [url for url in loading if url.startswith(("http", "//"))]
    theme, _ = fetched(f"{address}/theme.css")
    assert not re.search(r"url\((?![\"']?data:)", theme)
    assert "@import" not in theme
    assert "googleapis" not in page + theme
    assert "default-src 'self'" in headers["Content-Security-Policy"]


def test_files_of_the_machine_are_not_served(address: str) -> None:
    for path in (__file__, "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            fetched(f"{address}/gradio_api/file={path}")
