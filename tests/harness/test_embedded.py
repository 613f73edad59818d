"""The embedded model through lmms-eval says what it says in the scenes suite, and scores as much."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from divprune.checkpoints import EMBEDDED, load_model
from divprune.errors import EvaluationError
from divprune.evaluation.answer_log import AnswerLog
from divprune.evaluation.cells import Cell
from divprune.evaluation.scores import scores
from divprune.evaluation.suite import Suite
from divprune.evaluation.suite_cases import Case
from divprune.lmms_eval_plugin.backends import HarnessOptions
from divprune.lmms_eval_plugin.harness import run_cells
from divprune.records import Record
from tests.harness.scene_tasks import CAPTIONS, CHOICE, POPE, write_scene_tasks
from tests.harness.task_fixtures import *  # noqa: F403

NUM_SCENES = 12
SETTINGS = {"unpruned": None, "divprune": 0.098, "uniform": 0.25}


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


def test_two_processes_end_like_one(run: Callable[..., list[Record]], tasks: Path, tmp_path: Path) -> None:
    cell = Cell(EMBEDDED, POPE, "divprune", 0.098)
    (alone,) = run([cell], output=tmp_path / "one", limit=9, batch_size=1)
    code = f"""
from pathlib import Path
from divprune.evaluation.cells import Cell
from divprune.lmms_eval_plugin.backends import HarnessOptions
from divprune.lmms_eval_plugin.harness import run_cells
from tests.harness.test_embedded import Silent
run_cells([Cell({EMBEDDED!r}, {POPE!r}, "divprune", 0.098)], HarnessOptions(
    Path({str(tmp_path / "two")!r}), limit=9, include_paths=(Path({str(tasks)!r}),), tokenizer="python"), Silent())
"""
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", str(script)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert marks(tmp_path / "two", cell) == marks(tmp_path / "one", cell)
    two = json.loads((tmp_path / "two" / f"{cell.name}.json").read_text())
    assert two["rows"] == [dict(row) for row in alone.rows]
    assert two["config"]["num_kept_mean"] == 25
    assert not list((tmp_path / "two").glob(".*.answers*"))


def test_continuations_are_weighed_with_the_kept_tokens(run: Callable[..., list[Record]]) -> None:
    generated, weighed = run([Cell(EMBEDDED, task, "divprune", 0.098) for task in (POPE, CHOICE)])
    assert value(weighed, "acc") == pytest.approx(value(generated, "pope_accuracy"))


def test_a_record_of_another_run_is_not_overwritten(run: Callable[..., list[Record]]) -> None:
    cell = Cell(EMBEDDED, POPE, "divprune", 0.098)
    run([cell], limit=2)
    with pytest.raises(EvaluationError, match="limit 2, now 4"):
        run([cell], limit=4)
    (record,) = run([cell], limit=4, resume=False)
    assert record.config["num_samples"] == 4


def test_a_method_that_cannot_be_used_is_a_record_with_the_reason(run: Callable[..., list[Record]]) -> None:
    refused, done = run([Cell(EMBEDDED, POPE, "fitprune"), Cell(EMBEDDED, POPE, "random", 0.1)], limit=2)
    assert "calibrate fitprune" in refused.config["refusal"]
    assert done.config["num_kept_mean"] == 26


@pytest.mark.parametrize(
    ("task", "reason"),
    [("divprune_paper_popo", "did you mean 'divprune_paper_pope'"), ("divprune_paper_image", "is a group")],
)
def test_tasks_are_checked_first(task: str, reason: str, run: Callable[..., list[Record]]) -> None:
    with pytest.raises(EvaluationError, match=reason):
        run([Cell("no/such-model", task)])


def test_a_full_disk_loses_nothing(run: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch) -> None:
    from divprune.lmms_eval_plugin import answer_file

    written: list[int] = []
    original = answer_file.os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        original(descriptor)

    cell = Cell(EMBEDDED, POPE, "divprune", 0.098)
    monkeypatch.setattr(answer_file.os, "fsync", full)
    with pytest.raises(EvaluationError, match=r"No space left on device.*make room"):
        run([cell], limit=12)
    progress = Silent()
    (record,) = run([cell], limit=12, progress=progress)
    assert record.config["num_samples"] == 12
    assert progress.notes
