"""Runs that are interrupted, shared by processes, refused or short of disk end right, and nothing is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from divprune.checkpoints import EMBEDDED
from divprune.errors import EvaluationError, PruningError
from divprune.evaluation.runs import EvaluationRun
from divprune.records import Record
from tests.harness.scene_runs import NUM_SCENES, Silent, sample_scores_of
from tests.harness.scene_tasks import POPE

RUN = EvaluationRun(EMBEDDED, POPE, "divprune", 0.098)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    run: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin.models import pruned

    (whole,) = run([RUN], output=tmp_path / "whole")
    generated: list[int] = []
    original = pruned.HarnessModel._generated

    def counting(self: object, conversations: list, settings: dict) -> list:
        if sum(generated) == 8 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        generated.append(len(conversations))
        return original(self, conversations, settings)

    monkeypatch.setattr(pruned.HarnessModel, "_generated", counting)
    with pytest.raises(KeyboardInterrupt):
        run([RUN], output=tmp_path / "broken")
    assert sum(generated) == 8
    (tmp_path / "again").touch()
    progress = Silent()
    (resumed,) = run([RUN], output=tmp_path / "broken", progress=progress)
    assert sum(generated) == 2 * NUM_SCENES, "nothing is generated twice"
    assert progress.num_answered == 2 * NUM_SCENES
    assert "8 answers" in progress.notes[0]
    assert resumed.rows == whole.rows
    assert sample_scores_of(tmp_path / "broken", RUN) == sample_scores_of(tmp_path / "whole", RUN)
    assert resumed.config["num_visual_tokens_mean"] == whole.config["num_visual_tokens_mean"]
    assert not list((tmp_path / "broken").glob(".*.answers*"))
    # A finished run is not run again.
    run([RUN], output=tmp_path / "broken")
    assert sum(generated) == 2 * NUM_SCENES


@pytest.mark.parametrize(("signal", "num_after"), [("none", 2), ("kill", 2), ("kill", 1)])
def test_two_processes_end_like_one(
    signal: str, num_after: int, run: Callable[..., list[Record]], tasks: Path, tmp_path: Path
) -> None:
    """Also if both were killed after two answers each, and two or one go on."""
    limit = 9
    (alone,) = run([RUN], output=tmp_path / "one", limit=limit, batch_size=1)
    together = tmp_path / "two"
    script = tmp_path / "run.py"
    script.write_text(f"""
import os
from pathlib import Path
from divprune.evaluation.runs import EvaluationRun
from divprune.evaluation.harness_options import HarnessOptions
from divprune.lmms_eval_plugin.runs.execute import execute_runs
from tests.harness.scene_runs import Silent

class Killing(Silent):
    def answered(self, count):
        super().answered(count)
        if os.environ.get("KILLED_AFTER") == str(self.num_answered):
            os.kill(os.getpid(), 9)

execute_runs([EvaluationRun({EMBEDDED!r}, {POPE!r}, "divprune", 0.098)], HarnessOptions(
    Path({str(together)!r}), limit={limit}, include_paths=(Path({str(tasks)!r}),), tokenizer="python"), Killing())
""")
    if signal == "kill":
        assert torchrun(script, 2, KILLED_AFTER="2").returncode != 0
        kept = [line for path in together.glob(".*.answers-*.jsonl") for line in path.read_text().splitlines()]
        assert 2 <= len(kept) <= 4
        assert not list(together.glob("*.json"))
    done = torchrun(script, num_after)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sample_scores_of(together, RUN) == sample_scores_of(tmp_path / "one", RUN)
    record = json.loads((together / f"{RUN.name}.json").read_text())
    assert record["rows"] == [dict(row) for row in alone.rows]
    assert record["config"]["num_samples"] == limit
    assert record["config"]["num_kept_mean"] == 25
    assert not list(together.glob(".*.answers*"))


def torchrun(script: Path, num_processes: int, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={num_processes}",
        str(script),
    ]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)} | variables
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_a_record_of_another_run_is_not_overwritten(run: Callable[..., list[Record]]) -> None:
    run([RUN], limit=2)
    with pytest.raises(EvaluationError, match="limit 2, now 4"):
        run([RUN], limit=4)
    (record,) = run([RUN], limit=4, resume=False)
    assert record.config["num_samples"] == 4


def test_a_method_that_cannot_be_used_is_a_record_with_the_reason(run: Callable[..., list[Record]]) -> None:
    refused, done = run(
        [EvaluationRun(EMBEDDED, POPE, "fitprune"), EvaluationRun(EMBEDDED, POPE, "random", 0.1)], limit=2
    )
    assert "calibrate fitprune" in refused.config["refusal"]
    assert done.config["num_kept_mean"] == 26


def test_a_method_that_is_refused_by_the_first_call_is_a_record_too(
    run: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin.models import pruned

    original = pruned.HarnessModel._generated

    def refusing(self: object, conversations: list, settings: dict) -> list:
        if self._config.method.name == "norm":
            raise PruningError("it has no grid")
        return original(self, conversations, settings)

    monkeypatch.setattr(pruned.HarnessModel, "_generated", refusing)
    refused, done = run(
        [EvaluationRun(EMBEDDED, POPE, "norm", 0.1), EvaluationRun(EMBEDDED, POPE, "divprune", 0.1)], limit=3
    )
    assert "it has no grid" in refused.config["refusal"]
    assert done.config["num_kept_mean"] == 26


def test_answers_of_other_settings_are_not_taken(run: Callable[..., list[Record]], tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Be brief.")
    (first,) = run([RUN], limit=2, system_prompt=str(words), output=tmp_path / "out")
    assert first.config["system_prompt"] == "Be brief."
    words.write_text("Be long.")
    with pytest.raises(EvaluationError, match=r"system_prompt 'Be brief.', now 'Be long.'"):
        run([RUN], limit=2, system_prompt=str(words), output=tmp_path / "out")


def test_recipes_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    from divprune.evaluation.harness_options import HarnessOptions
    from divprune.lmms_eval_plugin.runs.run_records import run_settings

    recipe, seen = tmp_path / "recipe.json", set()
    for content in ("{}", "[]"):
        recipe.write_text(content)
        run = EvaluationRun(EMBEDDED, POPE, f"fitprune:recipe={recipe}")
        seen.add(run_settings(run, HarnessOptions(tmp_path), None)["method_files"])
    assert len(seen) == 2
    assert run_settings(RUN, HarnessOptions(tmp_path), None)["method_files"] is None


def test_no_resume_forgets_what_all_processes_said(tmp_path: Path) -> None:
    from divprune.jsonl_log import JsonlLog
    from divprune.lmms_eval_plugin.runs.answers import Answers, Response

    for rank in range(3):
        Answers(JsonlLog(tmp_path, "run", {}, rank)).add([Response(f"key {rank}", "yes")])
    alone = Answers(JsonlLog(tmp_path, "run", {}))
    assert len(alone) == 3
    alone.forget(num_processes=1)
    assert len(alone) == len(Answers(JsonlLog(tmp_path, "run", {}))) == 0


def test_processes_without_documents_are_refused(
    run: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divprune.lmms_eval_plugin.runs.execute.num_processes", lambda: 3)
    with pytest.raises(EvaluationError, match="2 documents for 3 processes"):
        run([RUN], limit=2)


@pytest.mark.parametrize(
    ("task", "reason"),
    [("divprune_paper_popo", "did you mean 'divprune_paper_pope'"), ("divprune_paper_image", "is a group")],
)
def test_tasks_are_checked_first(task: str, reason: str, run: Callable[..., list[Record]]) -> None:
    with pytest.raises(EvaluationError, match=reason):
        run([EvaluationRun("no/such-model", task)])


def test_a_full_disk_loses_nothing(
    run: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvaluationError, match=r"No space left on device.*make room"):
        run([RUN], limit=12)
    progress = Silent()
    (record,) = run([RUN], limit=12, progress=progress)
    assert record.config["num_samples"] == 12
    assert progress.notes
    monkeypatch.undo()
    (whole,) = run([RUN], output=tmp_path / "whole", limit=12)
    assert record.rows == whole.rows


def test_a_disk_that_is_full_when_the_record_is_written_keeps_the_answers(
    run: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin.models import pruned

    def full(self: Record, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Record, "save", full)
        with pytest.raises(EvaluationError, match=r"No space left on device.*make room"):
            run([RUN], limit=4)
    assert list(tmp_path.glob(".*.answers*"))
    monkeypatch.setattr(pruned.HarnessModel, "_generated", None)  # nothing is asked again
    (record,) = run([RUN], limit=4)
    assert record.config["num_samples"] == 4
