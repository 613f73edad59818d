"""The scenes suite answers every case, goes on after an interruption, and refuses by name."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import checkpoint_path, questions, scene
from divprune.errors import PruningError, UnknownMethodError
from divprune.evaluation.likelihoods import greedy_answer, judge_answer
from divprune.evaluation.matching import MATCHINGS
from divprune.evaluation.scenes import suite as suite_module
from divprune.evaluation.scenes.bench import IMAGE_BENCH
from divprune.evaluation.scenes.cases import (
    Case,
    cost_percent,
    every_method,
    suite_cases,
)
from divprune.evaluation.scenes.questions import batches
from divprune.evaluation.scenes.suite import Suite, SuiteEntry
from divprune.jsonl_log import JsonlLog
from divprune.methods import DivPrune, FitPrune, FitPruneRecipe, ItemContext, Method, available_methods
from tests.support.float64 import float32_is_float64

RECIPE = FitPruneRecipe((200, 30), 256)


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    folder: Path = checkpoint_path()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def plan(embedded: tuple[Any, Any], names: list[str], *arguments: Any) -> list[Case]:
    return suite_cases(names, model_shape(embedded[0].config), Workload(12, 256), *arguments)


def log_of(folder: Path) -> JsonlLog:
    return JsonlLog(folder, "eval-scenes", {"revision": "a"})


def test_every_registered_method_has_its_rows(embedded: tuple[Any, Any]) -> None:
    cases = plan(
        embedded, every_method(), IMAGE_BENCH.keep_ratios, MATCHINGS, {"fitprune": lambda ratio: FitPrune(RECIPE)}
    )
    named = {case.name.partition(":")[0] for case in cases}
    assert named == {"unpruned", "picture withheld"} | {info.name for info in available_methods()}
    tokens = [case for case in cases if case.name == "divprune" and case.matching == "tokens"]
    assert [(case.keep_ratio, case.num_keep) for case in tokens] == [(0.5, 128), (0.25, 64), (0.098, 25), (0.05, 13)]
    assert [case.num_keep for case in cases if case.name.startswith("vtw")] == [None]
    # Inside the language model, at layers that the embedded model has.
    inside = [case for case in cases if case.name != "fitprune" and case.method is not None and case.method.layers]
    assert [case.name for case in inside if case.refusal and "FLOP target" not in case.refusal] == []
    assert len({case.flop_percent for case in cases if case.name.startswith("sparsevlm")}) == 4


def test_before_the_language_model_equal_tokens_are_equal_flops(embedded: tuple[Any, Any]) -> None:
    tokens, flops = plan(embedded, ["uniform"], [0.25])[2:]
    assert (tokens.matching, flops.matching) == ("tokens", "flops")
    assert tokens.key == flops.key
    assert tokens.flop_percent == flops.flop_percent
    assert 20 < (tokens.flop_percent or 0) < 30


def test_inside_it_equal_flops_are_fewer_tokens_or_out_of_reach(embedded: tuple[Any, Any]) -> None:
    cases = plan(embedded, ["divprune:layer=1"], [0.5, 0.05], ["flops"])[2:]
    assert cases[0].num_keep is not None
    assert cases[0].num_keep < 128
    uniform = plan(embedded, ["uniform"], [0.5], ["tokens"])[2]
    assert cases[0].flop_percent == pytest.approx(uniform.flop_percent, abs=0.5)
    assert "FLOP target must lie between" in (cases[1].refusal or "")


@dataclass(frozen=True)
class Half(Method):
    """Finds its own count: half of what it is asked for, or 8."""

    name: ClassVar[str] = "half"

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        return torch.arange(num_keep // 2)


def test_what_a_method_really_kept_is_what_it_costs(embedded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divprune.methods.Half", Half, raising=False)
    shape, workload = model_shape(embedded[0].config), Workload(12, 256)
    (case,) = plan(embedded, ["half"], [0.5], ["tokens"])[2:]
    (quarter,) = plan(embedded, ["uniform"], [0.25], ["tokens"])[2:]
    assert cost_percent(case, 128, shape, workload) == case.flop_percent
    assert cost_percent(case, 64.2, shape, workload) == quarter.flop_percent


def test_a_method_with_a_count_of_its_own_also_runs_with_that(
    embedded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divprune.methods.Half", Half, raising=False)
    monkeypatch.setattr(Half, "count", "adaptive")
    own, asked = plan(embedded, ["half"], [0.5], ["tokens"])[2:]
    assert (own.num_keep, own.matching, own.flop_percent) == (None, None, None)
    assert asked.num_keep == 128
    (quarter,) = plan(embedded, ["uniform"], [0.25], ["tokens"])[2:]
    assert cost_percent(own, 64, model_shape(embedded[0].config), Workload(12, 256)) == quarter.flop_percent


def test_a_layer_that_is_not_there_is_refused_by_name(embedded: tuple[Any, Any]) -> None:
    (case,) = plan(embedded, ["vtw"], [0.5])[2:]
    assert "layer must be below the model's 4 decoder layers, got 15" in (case.refusal or "")
    (row,) = Suite(*embedded, 1).run([case], with_cider=False)
    assert row["refusal"] == case.refusal
    assert row["num_kept"] is None


def test_unknown_methods_are_refused(embedded: tuple[Any, Any]) -> None:
    with pytest.raises(UnknownMethodError, match="did you mean 'divprune'"):
        plan(embedded, ["divprun"])


class Stop(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_goes_on(embedded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = plan(embedded, ["random", "uniform"], [0.1], ["tokens"])
    whole = Suite(*embedded, 10).run(cases, with_cider=False)
    done = 0

    def stop_after_nine() -> None:
        nonlocal done
        done += 1
        if done == 9:
            raise Stop

    with pytest.raises(Stop):
        Suite(*embedded, 10, log_of(tmp_path)).run(cases, stop_after_nine, with_cider=False)
    (path,) = tmp_path.iterdir()
    # Killed while it wrote a line.
    path.write_text(path.read_text() + '{"case": "uni')
    log = log_of(tmp_path)
    suite = Suite(*embedded, 10, log)
    assert suite.num_done == 9
    asked: list[str] = []
    original = suite_module._entry

    def counted(case: Case, *arguments: Any) -> SuiteEntry:
        asked.append(case.name)
        return original(case, *arguments)

    monkeypatch.setattr(suite_module, "_entry", counted)
    assert suite.run(cases, with_cider=False) == whole
    assert len(asked) == suite.num_units * len(cases) - 9
    assert all(json.loads(line) for line in path.read_text().splitlines())
    log.delete()
    assert list(tmp_path.iterdir()) == []


def test_random_methods_draw_anew_for_each_scene(embedded: tuple[Any, Any]) -> None:
    method = plan(embedded, ["random"], [0.1])[2].method
    assert len({method.for_sample(first) for first in (0, 8, 16)}) == 3
    assert DivPrune().for_sample(8) == DivPrune()


@pytest.mark.parametrize("refuses", [("tokens",), ("tokens", "pixels")])
def test_methods_get_pixels_if_tokens_do_not_do(
    embedded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, refuses: tuple[str, ...]
) -> None:
    """As methods do that read the vision encoder, and those that this model cannot feed."""
    fed: list[str] = []
    generate = suite_module.Batch.generate

    def picky(batch: Any, feed: Any) -> list[str]:
        fed.append(feed)
        if feed in refuses:
            raise PruningError("needs a CLS token")
        return generate(batch, feed)

    monkeypatch.setattr(suite_module.Batch, "generate", picky)
    case = plan(embedded, ["divprune"], [0.1], ["tokens"])[2]
    (row,) = Suite(*embedded, 9).run([case], with_cider=False)
    # Once found out, it holds for all batches.
    assert fed == ["tokens", *["pixels"] * (1 if "pixels" in refuses else 4)]
    assert row["refusal"] == ("needs a CLS token" if "pixels" in refuses else None)


def test_pixels_and_tokens_give_the_same_answers(embedded: tuple[Any, Any]) -> None:
    (batch, _) = batches(*embedded, [scene(0)])
    assert batch.generate("pixels") == batch.generate("tokens")
    with torch.inference_mode():
        assert DivPrune().select(batch.visual_tokens[0], 3, ItemContext()).shape == (3,)


def test_retention_is_that_of_each_question_alone(embedded: tuple[Any, Any], tmp_path: Path) -> None:
    cases = plan(embedded, ["divprune", "fastv:layer=1"], (0.02,), ("tokens",))
    shown = [scene(seed, "test") for seed in range(2)]
    with float32_is_float64():
        model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).double().eval()
        processor = embedded[1]
        suite = Suite(model, processor, len(shown), log_of(tmp_path), with_retention=True)
        rows = suite.run(cases, with_cider=False)
        expected = {case.name: alone(model, processor, case, shown) for case in cases}
        # A log gives the same again.
        again = Suite(model, processor, len(shown), log_of(tmp_path), with_retention=True)
        assert again.run(cases, with_cider=False) == rows
    unpruned, blind = (sum(expected[name]) for name in ("unpruned", "picture withheld"))
    for row, case in zip(rows, cases, strict=True):
        retained = 100 * (sum(expected[case.name]) - blind) / (unpruned - blind)
        assert row["retention_percent"] == pytest.approx(retained, rel=1e-6, abs=1e-6)
        assert row["retention_low_percent"] <= row["retention_percent"] <= row["retention_high_percent"]
    assert [row["retention_percent"] for row in rows[:2]] == [pytest.approx(100), pytest.approx(0)]
    assert 0 < rows[3]["retention_percent"] < rows[2]["retention_percent"] < 100


def alone(model: Any, processor: Any, case: Case, shown: list[Any]) -> list[float]:
    """How likely a case finds the unpruned answers, each question asked alone, from pixels."""
    found = []
    for each in shown:
        for part in IMAGE_BENCH.parts:
            for question in questions(each):
                if question.kind in part.kinds:
                    inputs, blind = (inputs_of(processor, question.prompt, image) for image in (each.image, None))
                    answer = greedy_answer(model, inputs, part.max_new_tokens)
                    if case.method is None:
                        judged = judge_answer(model, inputs if case.name == "unpruned" else blind, answer)
                    else:
                        with prune(model, case.method, num_keep=case.num_keep):
                            judged = judge_answer(model, inputs, answer)
                    found.append(judged.log_likelihood)
    return found


def inputs_of(processor: Any, prompt: str, image: Any) -> dict[str, Any]:
    content = [*([] if image is None else [{"type": "image"}]), {"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(text=text, images=image, return_tensors="pt"))
