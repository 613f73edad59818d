"""The embedded model through lmms-eval says what it says in the scenes suite, and scores as much."""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from divprune.checkpoints import EMBEDDED, load_model
from divprune.evaluation.answer_log import AnswerLog
from divprune.evaluation.cells import Cell
from divprune.evaluation.scores import scores
from divprune.evaluation.suite import Suite
from divprune.evaluation.suite_cases import Case
from divprune.lmms_eval_plugin import harness
from divprune.lmms_eval_plugin.backends import HarnessOptions
from divprune.lmms_eval_plugin.harness import run_cells
from divprune.records import Record
from tests.harness.scene_tasks import CAPTIONS, POPE, write_scene_tasks
from tests.harness.task_fixtures import *  # noqa: F403

NUM_SCENES = 12
SETTINGS = {"unpruned": None, "divprune": 0.098}


class Silent:
    def __init__(self) -> None:
        self.num_answered = 0
        self.notes: list[str] = []

    def cell(self, cell: Cell, num_requests: int) -> None:
        pass

    def answered(self, count: int) -> None:
        self.num_answered += count

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene_tasks(tmp_path_factory.mktemp("tasks"), NUM_SCENES)


@pytest.fixture(scope="session", autouse=True)
def one_index(tasks: Path) -> Iterator[None]:
    """lmms-eval's index of tasks takes seconds, and is the same in all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "task_manager", lru_cache(harness.task_manager))
        yield


@pytest.fixture
def run(tasks: Path, tmp_path: Path) -> Callable[..., list[Record]]:
    def finished(cells: list[Cell], **options: object) -> list[Record]:
        given = {"output": tmp_path, "include_paths": (tasks,), "batch_size": 4, "tokenizer": "python"} | options
        progress = given.pop("progress", Silent())
        return run_cells(cells, HarnessOptions(**given), progress)

    return finished


def said(folder: Path, cell: Cell) -> list[str]:
    return [mark["said"] for mark in marks(folder, cell)]


def marks(folder: Path, cell: Cell) -> list[dict]:
    lines = (folder / f"{cell.name}.samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def value(record: Record, metric: str) -> float:
    (found,) = [row["value"] for row in record.rows if row["metric"] == metric]
    return float(found)


@pytest.fixture(scope="session")
def suite() -> Suite:
    loaded = load_model(EMBEDDED, torch.device("cpu"), "float32")
    return Suite(loaded.model, loaded.processor, NUM_SCENES, AnswerLog(None, "none", {}))


@pytest.mark.parametrize("method", SETTINGS)
def test_same_answers_and_scores_as_the_scenes_suite(
    method: str, suite: Suite, run: Callable[..., list[Record]], tmp_path: Path
) -> None:
    ratio = SETTINGS[method]
    cells = [Cell(EMBEDDED, task, method, ratio) for task in (POPE, CAPTIONS)]
    pope, captions = run(cells)
    case = Case(method, "tokens" if ratio else None, ratio, round(256 * ratio) if ratio else None)
    suite.run([case], with_cider=False)
    answered = suite.answered(case)
    for cell, kind in zip(cells, ("existence", "caption"), strict=True):
        assert said(tmp_path, cell) == [one.said for one in answered if one.question.kind == kind]
    expected = scores(answered, NUM_SCENES, with_cider=True)
    assert value(pope, "pope_f1_score") == pytest.approx(expected["existence_f1_percent"] / 100)
    assert value(captions, "coco_CIDEr") == pytest.approx(expected["caption_cider"], abs=1e-6)
    assert pope.config["num_samples"] == 2 * NUM_SCENES


def test_records_say_what_was_kept(run: Callable[..., list[Record]]) -> None:
    (record,) = run([Cell(EMBEDDED, POPE, "divprune", 0.098)], limit=4)
    config = record.config
    assert (config["num_visual_tokens_mean"], config["num_kept_mean"]) == (256, 25)
    assert config["dataset"]["num_samples"] == 2 * NUM_SCENES
    assert config["num_samples"] == 4
    assert len(config["dataset"]["fingerprint"]) == 32
    assert config["model_revision"]
    assert config["selection_seconds_per_prompt"] > 0


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    run: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin import pruned_model

    cell = Cell(EMBEDDED, POPE, "divprune", 0.098)
    (whole,) = run([cell], output=tmp_path / "whole")
    generated: list[int] = []
    original = pruned_model.PrunedModel._generated

    def counting(self: object, conversations: list, settings: dict) -> list:
        if sum(generated) == 8 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        generated.append(len(conversations))
        return original(self, conversations, settings)

    monkeypatch.setattr(pruned_model.PrunedModel, "_generated", counting)
    with pytest.raises(KeyboardInterrupt):
        run([cell], output=tmp_path / "broken")
    assert sum(generated) == 8
    (tmp_path / "again").touch()
    progress = Silent()
    (resumed,) = run([cell], output=tmp_path / "broken", progress=progress)
    assert sum(generated) == 2 * NUM_SCENES, "nothing is generated twice"
    assert progress.num_answered == 2 * NUM_SCENES
    assert "8 answers" in progress.notes[0]
    assert resumed.rows == whole.rows
    assert marks(tmp_path / "broken", cell) == marks(tmp_path / "whole", cell)
    assert resumed.config["num_visual_tokens_mean"] == whole.config["num_visual_tokens_mean"]
    assert not list((tmp_path / "broken").glob(".*.answers*"))
    # A finished cell is not run again.
    run([cell], output=tmp_path / "broken")
    assert sum(generated) == 2 * NUM_SCENES
