"""The exported demo: its numbers, where it goes, and that nothing is lost on the way."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune import outputs
from divprune.checkpoints import LoadedModel
from divprune.embedded.examples import bundled_scenes
from divprune.errors import ArgumentError
from divprune.huggingface import prune
from divprune.prompting import build_inputs, decode_answer
from divprune.web_demo import ExportOptions, export_demo

METHODS = ("divprune", "uniform", "fastv")
RATIOS = (0.05, 0.098)
QUICK: dict[str, Any] = {"methods": ("random",), "keep_ratios": (0.02,)}
PROMPT = "How many objects are there?"


def options(folder: Path, **others: Any) -> ExportOptions:
    values = {"methods": METHODS, "keep_ratios": RATIOS, "prompts": (PROMPT,), "max_new_tokens": 4, "device": "cpu"}
    return ExportOptions(folder=folder, **(values | others))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_demo(options(tmp_path_factory.mktemp("exported") / "gallery")).folder


@pytest.fixture(scope="module")
def data(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "data.json").read_text(encoding="utf-8"))


def test_every_number_is_what_a_pruned_call_gives(data: dict[str, Any], loaded: LoadedModel) -> None:
    assert len(data["scenes"]) == 4
    for scene, example in zip(data["scenes"], bundled_scenes([PROMPT]), strict=True):
        (question,) = scene["questions"]
        assert question["prompt"] == PROMPT
        assert [(run["method"], run["keep_ratio"]) for run in question["runs"]] == [
            (method, ratio) for method in METHODS for ratio in RATIOS
        ]
        inputs = build_inputs(loaded, example.media, PROMPT)
        for run in question["runs"]:
            with prune(loaded.model, run["method"], keep_ratio=run["keep_ratio"]) as pruning:
                sequences = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
            report = pruning.last
            assert report is not None
            assert scene["orders"][run["order"]] == report.items[0].selection_order.tolist()
            assert run["num_kept"] == report.num_kept == len(scene["orders"][run["order"]])
            assert run["kv_cache_bytes"] == report.kv_cache_bytes
            assert question["unpruned"]["kv_cache_bytes"] == report.kv_cache_bytes_unpruned
            assert scene["num_visual_tokens"] == report.num_visual_tokens == len(scene["boxes"])
            assert run["answer"] == decode_answer(loaded, inputs, sequences)
        sequences = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert question["unpruned"]["answer"] == decode_answer(loaded, inputs, sequences)


def test_the_page_holds_the_same_numbers_and_asks_nobody(exported: Path, data: dict[str, Any]) -> None:
    page = (exported / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    assert json.loads(found[1]) == data
    # The one address is the name of a format.
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|script|img)[^>]+(src|href)=", page)
    assert "default-src 'none'" in page


def test_questions_cannot_write_html(tmp_path: Path) -> None:
    prompt = "</script><script>alert(1)</script><!-- What?"
    folder = export_demo(options(tmp_path / "gallery", prompts=(prompt,), **QUICK)).folder
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


def test_scenes_lie_beside_the_page(exported: Path, data: dict[str, Any]) -> None:
    assert {path.name for path in exported.iterdir()} == {"index.html", "data.json", "images"}
    sources = {scene["frame"]["source"] for scene in data["scenes"]}
    assert sources == {f"images/{path.name}" for path in (exported / "images").iterdir()}
    for scene, example in zip(data["scenes"], bundled_scenes([PROMPT]), strict=True):
        with Image.open(exported / scene["frame"]["source"]) as image:
            assert image.convert("RGB").tobytes() == example.media[0].frames[0].tobytes()


def test_the_default_questions_have_known_answers(tmp_path: Path) -> None:
    small = options(tmp_path / "gallery", methods=("random",), keep_ratios=(0.02,), prompts=())
    found = export_demo(small)
    questions = [question for scene in found.data["scenes"] for question in scene["questions"]]
    assert len(questions) > 8
    assert all(question["expected"] for question in questions)
    right = sum(question["unpruned"]["answer"] == question["expected"] for question in questions)
    assert right > len(questions) / 2
    assert found.as_json()["num_answers"] == 2 * len(questions)


def test_an_earlier_export_is_replaced_and_an_empty_folder_filled(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    folder.mkdir()
    export_demo(options(folder, **QUICK))
    first = (folder / "data.json").read_text(encoding="utf-8")
    export_demo(options(folder, methods=("uniform",), keep_ratios=(0.02,)))
    assert (folder / "data.json").read_text(encoding="utf-8") != first
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


@pytest.mark.parametrize("foreign", ["letter.txt", "index.html", "images/photo.jpg"])
def test_a_folder_with_anything_else_is_refused(foreign: str, tmp_path: Path) -> None:
    path = tmp_path / "gallery" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(ArgumentError, match="holds something else than an earlier export"):
        export_demo(options(tmp_path / "gallery"))
    assert path.read_text(encoding="utf-8") == "precious"


def test_a_file_laid_into_an_export_is_not_lost(tmp_path: Path) -> None:
    folder = export_demo(options(tmp_path / "gallery", **QUICK)).folder
    for place in (folder / "notes.txt", folder / "images" / "notes.txt"):
        place.write_text("precious", encoding="utf-8")
        with pytest.raises(ArgumentError, match="holds something else"):
            export_demo(options(folder, **QUICK))
        place.unlink()


@pytest.mark.parametrize("name", ["file", "link", "missing/gallery"])
def test_what_is_no_place_for_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ArgumentError, match=r"`folder` .*(no folder|no directory)"):
        export_demo(options(tmp_path / name))


def test_a_failure_leaves_the_earlier_export_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export_demo(options(tmp_path / "gallery", **QUICK)).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(path: Path, content: object) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(outputs, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        export_demo(options(folder, **QUICK))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ()}, "`methods` must be at least one"),
        ({"methods": ("random", "random")}, "each once"),
        ({"keep_ratios": (1.5,)}, r"keep_ratio must be in \(0, 1\]"),
        ({"prompts": (" ",)}, "`prompts` is empty"),
        ({"methods": ("vtw",)}, "vtw"),
        ({"methods": ("evs",)}, "evs"),
        ({"methods": ("divprun",)}, "did you mean 'divprune'"),
    ],
)
def test_what_cannot_be_exported_is_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export_demo(options(tmp_path / "gallery", **wrong))
    assert list(tmp_path.iterdir()) == []
