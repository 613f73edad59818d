"""examples/, run as they are on the embedded model; docs/recipes/ shows their text.

What needs a library that `make test` does without (FastAPI, TRL, Jupyter) runs in `make test-docs`.
"""

import importlib
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.embedded import scene

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
RECIPES = ROOT / "docs" / "recipes"
# transformers and PEFT ask each other for names that were renamed.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*pin_memory:UserWarning")


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run an example in an empty folder; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_first_answer(printed: Any) -> None:
    answer, report, kept = printed("first_answer.py").split("\n", maxsplit=2)
    assert answer == "6"
    assert report.startswith("25 of 256 tokens (9.8%)")
    assert kept.startswith("tensor(")


def test_streaming_prints_the_answer_and_the_report_of_its_thread(printed: Any) -> None:
    answer, report = printed("streaming.py").splitlines()
    assert "star" in answer
    assert report.startswith("(25 of 256 tokens (9.8%)")


def test_batch_answers_each_row_from_its_own_images(printed: Any) -> None:
    lines = printed("batch.py").splitlines()
    kept = ["25 of 256", "25 of 256", "25 of 256 and 25 of 256", "no image"]
    assert [line.partition("(")[2] for line in lines] == [f"{each})" for each in kept]
    assert lines[0].startswith("0: 6 ")
    assert lines[1].startswith(("1: yes ", "1: no "))


def test_the_second_turn_reads_the_pruned_cache(printed: Any) -> None:
    lines = printed("multi_turn.py").splitlines()
    assert lines[0] == "6"
    held, whole = map(int, re.findall(r"\d+", lines[-1]))
    # The last token of the answer was not fed in.
    assert whole - held == 256 - 25 + 1


def test_the_overlay_shows_the_kept_patches_as_they_are(printed: Any, tmp_path: Path) -> None:
    assert printed("own_overlay.py") == "kept.png shows 25 of 256 tokens\n"
    original, overlay = scene(0).image.resize((512, 512)), Image.open(tmp_path / "kept.png").convert("RGB")
    # Patches are 32 pixels here; their lower right corners carry neither outline nor number.
    places = [(column * 32 + 28, row * 32 + 28) for row in range(16) for column in range(16)]
    assert sum(original.getpixel(place) == overlay.getpixel(place) for place in places) == 25


def test_counts_follow_the_image_and_the_call(printed: Any) -> None:
    counts = {name: list(map(int, re.findall(r"\d+", found))) for name, found in _lines(printed("adaptive_counts.py"))}
    blank, full = counts["by content, blank and full"]
    assert 1 <= blank < full <= 64
    assert len(set(counts["as PruMerge counts"])) == 2
    assert counts["by item"] == [256, 26]
    assert counts["for one call"] == [10]
    assert counts["and again as before"] == [64]


def _lines(text: str) -> list[list[str]]:
    return [line.split(": ") for line in text.splitlines()]


def test_an_adapter_learns_from_pruned_prompts(printed: Any) -> None:
    pytest.importorskip("peft")
    lines = printed("peft_adapter.py").splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines[:-1]]
    assert losses[-1] < 0.1 < losses[0]
    _, taught, answered = re.split(r"taught: | answers: ", lines[-1])
    assert taught == answered


def test_trainer_trains_and_evaluates(printed: Any) -> None:
    pytest.importorskip("accelerate")
    lines = printed("trainer.py").splitlines()
    assert any(line.startswith("100 of 1024 tokens") for line in lines)
    assert float(lines[-1].split(": ")[1]) > 0.8


def test_trl_trains(printed: Any) -> None:
    pytest.importorskip("trl")
    lines = printed("trl_sft.py").splitlines()
    losses = [float(loss) for loss in lines[-2].removeprefix("loss: ").split()]
    assert len(losses) == 3
    assert all(0 < loss < 2 for loss in losses)
    assert lines[-1].startswith("50 of 512 tokens")


def test_a_server_answers_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    client_module = pytest.importorskip("fastapi.testclient")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    app = importlib.import_module("fastapi_app").app
    photo = io.BytesIO()
    scene(0).image.save(photo, "PNG")

    def ask(content: bytes, **fields: str) -> Any:
        return client.post("/ask", files={"image": ("scene.png", content)}, data=fields)

    with client_module.TestClient(app) as client:
        asked = {"question": "How many objects are there?"}
        found = ask(photo.getvalue(), **asked).json()
        assert found["answer"] == "6"
        assert (found["kept"], found["visual_tokens"]) == (25, 256)
        assert found["kv_cache_bytes"] < found["kv_cache_bytes_unpruned"] / 5
        assert ask(photo.getvalue(), **asked, keep_ratio="0.25").json()["kept"] == 64
        assert ask(photo.getvalue(), **asked).json()["kept"] == 25
        assert ask(photo.getvalue(), **asked, keep_ratio="2").status_code == 422
        broken = ask(b"not an image", **asked)
        assert broken.status_code == 400
        assert "scene.png is not an image" in broken.json()["detail"]


@pytest.fixture(scope="session")
def own_method(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of examples/own_method, installed into a folder."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, str(EXAMPLES / "own_method")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_method_of_another_package_is_found_by_its_name(own_method: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import torch
from divprune.methods import ItemContext, available_methods, get_method
assert "centre" in [info.name for info in available_methods()]
method = get_method("centre:aspect=0.25")
picked = method.select(torch.zeros(15, 4), 3, ItemContext(grid=(1, 3, 5)))
print(sorted(picked.tolist()))
"""
    monkeypatch.setenv("PYTHONPATH", f"{own_method}:{ROOT}")
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    # Rows count a quarter: the tokens above and below are nearer than those beside.
    assert finished.stdout == "[2, 7, 12]\n"


def test_every_example_has_a_recipe_that_shows_it() -> None:
    pages = [*RECIPES.glob("*.md"), ROOT / "docs" / "start.md"]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    for path in sorted(EXAMPLES.rglob("*")):
        if path.suffix in (".py", ".toml"):
            assert f'--8<-- "{path.relative_to(ROOT)}"' in shown, path.name


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook["cells"])
    assert notebook["cells"][1]["source"][0].startswith('CHECKPOINT = "embedded"')
