"""Runs about generated scenes, run with the embedded model: what several test files share."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

from divprune.evaluation.runs import EvaluationRun
from divprune.records import Record
from tests.harness.scene_tasks import write_scene_tasks

NUM_SCENES = 12


class Silent:
    """Progress that nobody sees."""

    def __init__(self) -> None:
        self.num_answered = 0
        self.notes: list[str] = []

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield self.answered

    def answered(self, count: int) -> None:
        self.num_answered += count

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene_tasks(tmp_path_factory.mktemp("tasks"), NUM_SCENES)


@pytest.fixture(scope="session")
def one_index(tasks: Path) -> Iterator[None]:
    """lmms-eval's index of tasks takes seconds, and is the same in all tests."""
    from divprune.lmms_eval_plugin.runs import execute

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "task_manager", lru_cache(execute.task_manager))
        yield


@pytest.fixture
def run(one_index: None, tasks: Path, tmp_path: Path) -> Callable[..., list[Record]]:
    """`run(runs, **options)` returns the records."""
    from divprune.evaluation.harness_options import HarnessOptions
    from divprune.lmms_eval_plugin.runs.execute import execute_runs

    def finished(runs: list[EvaluationRun], **options: object) -> list[Record]:
        given = {"output": tmp_path, "include_paths": (tasks,), "batch_size": 4, "tokenizer": "python"} | options
        progress = given.pop("progress", Silent())
        return execute_runs(runs, HarnessOptions(**given), progress)

    return finished


def sample_scores_of(folder: Path, run: EvaluationRun) -> list[dict]:
    """What is known of each document."""
    lines = (folder / f"{run.name}.samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def said(folder: Path, run: EvaluationRun) -> list[str]:
    return [sample_score["said"] for sample_score in sample_scores_of(folder, run)]


def value(record: Record, metric: str) -> float:
    (found,) = [row["value"] for row in record.rows if row["metric"] == metric]
    return float(found)
