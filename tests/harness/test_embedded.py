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
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.evaluation.scenes.cases import Case
from divprune.evaluation.scenes.scores import scores
from divprune.evaluation.scenes.suite import Suite
from divprune.records import Record
from tests.harness.scene_runs import NUM_SCENES, said, value
from tests.harness.scene_tasks import CAPTIONS, CHOICE, POPE

# Not `uniform`, which keeps other tokens where it knows their grid, as tasks of the harness cannot tell; nor `random`,
# which draws by document.
SETTINGS = {UNPRUNED: None, "divprune": 0.098, "norm": 0.25}


@pytest.fixture(scope="session")
def suite() -> Suite:
    loaded = load_model(EMBEDDED, torch.device("cpu"), "float32")
    return Suite(loaded.model, loaded.processor, NUM_SCENES)


@pytest.mark.parametrize("method", SETTINGS)
def test_same_answers_and_scores_as_the_scenes_suite(
    method: str, suite: Suite, run: Callable[..., list[Record]], tmp_path: Path
) -> None:
    ratio = SETTINGS[method]
    runs = [EvaluationRun(EMBEDDED, task, method, ratio) for task in (POPE, CAPTIONS)]
    pope, captions = run(runs)
    case = Case(method, "tokens" if ratio else None, ratio, round(256 * ratio) if ratio else None)
    suite.run([case], with_cider=False)
    answered = suite.answered(case)
    for run, kind in zip(runs, ("existence", "caption"), strict=True):
        assert said(tmp_path, run) == [one.prediction for one in answered if one.question.kind == kind]
    expected = scores(answered, NUM_SCENES, with_cider=True)
    assert value(pope, "pope_f1_score") == pytest.approx(expected["existence_f1_percent"] / 100)
    assert value(captions, "coco_CIDEr") == pytest.approx(expected["caption_cider"], abs=1e-6)
    assert pope.config["num_samples"] == 2 * NUM_SCENES


def test_pruning_changes_what_is_said(run: Callable[..., list[Record]], tmp_path: Path) -> None:
    runs = [
        EvaluationRun(EMBEDDED, CAPTIONS, UNPRUNED),
        *(EvaluationRun(EMBEDDED, CAPTIONS, "random", share) for share in (0.5, 0.02)),
    ]
    run(runs)
    whole, half, little = (said(tmp_path, run) for run in runs)
    assert whole != half != little


def test_records_say_what_was_kept(run: Callable[..., list[Record]]) -> None:
    (record,) = run([EvaluationRun(EMBEDDED, POPE, "divprune", 0.098)], limit=4)
    config = record.config
    assert (config["num_visual_tokens_mean"], config["num_kept_mean"]) == (256, 25)
    assert config["dataset"]["num_samples"] == 2 * NUM_SCENES
    assert config["num_samples"] == 4
    assert len(config["dataset"]["fingerprint"]) == 32
    assert config["model_revision"]
    assert config["selection_seconds_per_prompt"] > 0


def test_continuations_are_weighed_with_the_kept_tokens(run: Callable[..., list[Record]]) -> None:
    for method, ratio in (("divprune", 0.098), ("norm", 0.02)):
        generated, weighed = run([EvaluationRun(EMBEDDED, task, method, ratio) for task in (POPE, CHOICE)])
        assert value(weighed, "acc") == pytest.approx(value(generated, "pope_accuracy"))
        assert weighed.config["num_samples"] == generated.config["num_samples"] == 2 * NUM_SCENES


@pytest.mark.parametrize(("task", "flags"), [(POPE, []), (CHOICE, ["--force_simple"])])
def test_lmms_evals_own_command_knows_the_model(task: str, flags: list[str], tasks: Path, tmp_path: Path) -> None:
    arguments = ["--model", "divprune", "--model_args", "pretrained=embedded,method=divprune,keep_ratio=0.098,layer=0"]
    arguments += ["--tasks", task, "--include_path", str(tasks), "--limit", "6", "--batch_size", "2"]
    arguments += ["--output_path", str(tmp_path / "out"), "--log_samples", "--timezone", "UTC"]
    command = [sys.executable, "-m", "lmms_eval", *arguments, *flags]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240, check=False)
    found = list((tmp_path / "out").rglob("*_results.json"))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    metrics = json.loads(found[0].read_text())["results"][task]
    (score,) = [metrics[name] for name in ("pope_accuracy,none", "acc,none") if name in metrics]
    assert score == 1.0
