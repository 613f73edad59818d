"""What runs retain: the unpruned model's answers judged by each run's model, written down, and never judged twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from divprune import prune
from divprune.checkpoints import EMBEDDED, load_model
from divprune.embedded import scene
from divprune.errors import EvaluationError
from divprune.evaluation.likelihoods import greedy_answer, judge_answer
from divprune.evaluation.results import Results
from divprune.evaluation.runs import EvaluationRun
from divprune.media import Medium
from divprune.prompting import build_inputs
from divprune.records import Record
from tests.harness.scene_runs import NUM_SCENES
from tests.harness.scene_tasks import CHOICE, POPE, asked
from tests.harness.test_runs import torchrun

UNPRUNED, PRUNED, RANDOM = (
    EvaluationRun(EMBEDDED, POPE, *method) for method in ((), ("divprune", 0.05), ("random", 0.02))
)


def test_runs_are_judged_by_the_unpruned_answers(run: Callable[..., list[Record]], tmp_path: Path) -> None:
    run([UNPRUNED, PRUNED, RANDOM], retention=True)
    results = Results(tmp_path)
    found = results.judged(UNPRUNED)
    assert len(found) == 2 * NUM_SCENES
    assert len({each.media for each in found}) == NUM_SCENES
    assert all(each.log_likelihood > (each.blind_log_likelihood or 0) - 1e-9 for each in found if each.answer == "yes")
    whole = results.retention(UNPRUNED)
    assert whole is not None
    assert whole.value == 1
    pruned, random = results.retention(PRUNED), results.retention(RANDOM)
    assert pruned is not None
    assert random is not None
    assert random.value < pruned.value <= 1.001
    assert random.low < random.value < random.high
    # The numbers are those of one forward a question, by the same operations.
    loaded = load_model(EMBEDDED, torch.device("cpu"), "auto")
    tokenizer = loaded.processor.tokenizer
    expected = []
    for place, question in enumerate(asked(NUM_SCENES, "existence")):
        inputs = build_inputs(loaded, [Medium("", "image", (scene(place // 2, "test").image,))], question.prompt)
        answer = tokenizer.decode(greedy_answer(loaded.model, inputs, 8), skip_special_tokens=True).strip()
        ids = tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        with prune(loaded.model, "divprune", keep_ratio=0.05):
            expected.append(judge_answer(loaded.model, inputs, ids).log_likelihood)
    assert sorted(each.log_likelihood for each in results.judged(PRUNED)) == sorted(expected)


def test_an_interrupted_run_judges_nothing_twice(
    run: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin.models import pruned

    run([UNPRUNED, PRUNED], retention=True, output=tmp_path / "whole")
    judged: list[str] = []
    original = pruned.HarnessModel.judge

    def counting(self: object, request: object, conversation: list, answer: str) -> float:
        if len(judged) == 2 * 2 * NUM_SCENES + 5 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        judged.append(answer)
        return original(self, request, conversation, answer)

    monkeypatch.setattr(pruned.HarnessModel, "judge", counting)
    with pytest.raises(KeyboardInterrupt):
        run([UNPRUNED, PRUNED], retention=True)
    (tmp_path / "again").touch()
    run([UNPRUNED, PRUNED], retention=True)
    assert len(judged) == 3 * 2 * NUM_SCENES, "twice for the unpruned run, once for the other"
    assert Results(tmp_path).judged(PRUNED) == Results(tmp_path / "whole").judged(PRUNED)
    assert not list(tmp_path.glob(".*.answers*"))
    # What has run without is run again where it is asked for; multiple choice is not generated, and not judged.
    run([UNPRUNED, EvaluationRun(EMBEDDED, CHOICE)], output=tmp_path / "late")
    assert Results(tmp_path / "late").judged(UNPRUNED) == []
    run([UNPRUNED, EvaluationRun(EMBEDDED, CHOICE)], retention=True, output=tmp_path / "late")
    assert Results(tmp_path / "late").judged(UNPRUNED) == Results(tmp_path).judged(UNPRUNED)


def test_without_the_unpruned_run_there_is_nothing_to_judge(run: Callable[..., list[Record]]) -> None:
    with pytest.raises(EvaluationError, match="run that first"):
        run([PRUNED], retention=True)


def test_two_processes_judge_like_one(run: Callable[..., list[Record]], tasks: Path, tmp_path: Path) -> None:
    run([UNPRUNED, PRUNED], retention=True, limit=9, batch_size=1, output=tmp_path / "one")
    script = tmp_path / "run.py"
    script.write_text(f"""
from pathlib import Path
from divprune.evaluation.runs import EvaluationRun
from divprune.evaluation.harness_options import HarnessOptions
from divprune.lmms_eval_plugin.runs.execute import execute_runs
from tests.harness.scene_runs import Silent

runs = [EvaluationRun({EMBEDDED!r}, {POPE!r}), EvaluationRun({EMBEDDED!r}, {POPE!r}, "divprune", 0.05)]
execute_runs(runs, HarnessOptions(Path({str(tmp_path / "two")!r}), limit=9, include_paths=(Path({str(tasks)!r}),),
    tokenizer="python", retention=True), Silent())
""")
    done = torchrun(script, 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Results(tmp_path / "two").judged(PRUNED) == Results(tmp_path / "one").judged(PRUNED)
