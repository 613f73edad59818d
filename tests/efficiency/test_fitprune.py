"""FitPrune's calibration meets its FLOP target, and is kept, loaded and refused as it should be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from divprune import prune
from divprune.calibration import FitPruneCalibration, calibrate_fitprune
from divprune.calibration.attention_mass import AttentionSamples
from divprune.calibration.fitprune import fit_recipe
from divprune.efficiency import architecture_config, compare, model_shape
from divprune.efficiency.flops import selection_flop
from divprune.efficiency.schedule import DropSchedule
from divprune.efficiency.workloads import Workload
from divprune.errors import CalibrationError
from divprune.methods import FitPrune, FitPruneRecipe
from divprune.methods.fitprune_recipe import AttentionMass
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import ONE_AND_TWO

LLAVA = model_shape(architecture_config("llava-1.5-7b"))
PROMPTS = [Workload(48, 576)]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture(scope="module")
def samples(model: PreTrainedModel) -> list[dict[str, Any]]:
    return [make_inputs(CASES["llava"], model, rows) for rows in (ONE_AND_TWO, ONE_AND_TWO[:1])]


@pytest.fixture(scope="module")
def seen() -> AttentionSamples:
    """Attention with long tails, which agrees more or less between layers, as in real models."""
    draw = torch.Generator().manual_seed(0)
    masses = []
    for _ in range(3):
        common = 2 * torch.randn(1, 576, generator=draw)
        visual, text = ((common + torch.randn(31, 576, generator=draw)).exp() for _ in range(2))
        masses.append(AttentionMass(visual, text))
    return AttentionSamples("a model", 0, tuple(masses), ((48, 576),) * 3)


@pytest.mark.parametrize("accounting", ["paper", "exact"])
def test_the_target_is_met_and_smaller_ones_drop_more(seen: AttentionSamples, accounting: Any) -> None:
    targets = (0.9, 0.7, 0.5, 0.3, 0.2)
    found = [fit_recipe(seen, target, LLAVA, PROMPTS, accounting) for target in targets]
    for target, each in zip(targets, found, strict=True):
        assert each.flop_ratio == pytest.approx(target, abs=0.002)
        assert each.flop_ratio == compare(LLAVA, PROMPTS, FitPrune(each.recipe), None, accounting).ratio
        assert (each.target_ratio, each.num_samples, each.accounting) == (target, 3, accounting)
        assert (each.recipe.num_visual_tokens, each.recipe.model) == (576, "a model")
    alphas = [each.alpha for each in found]
    assert alphas == sorted(alphas)
    for more, less in zip(found[1:], found, strict=False):
        counts = [DropSchedule(576, FitPrune(each.recipe).schedule(576)).counts(32) for each in (more, less)]
        assert all(here <= there for here, there in zip(*counts, strict=True))


def test_targets_out_of_reach_are_refused_with_what_can_be_had(seen: AttentionSamples) -> None:
    everything = fit_recipe(seen, 0.1111, LLAVA, PROMPTS)
    lowest = compare(LLAVA, PROMPTS, FitPrune(everything.recipe), None, "paper").ratio
    assert lowest == pytest.approx(0.1111, abs=0.001)
    with pytest.raises(CalibrationError, match=r"must lie between 10\.\d\d% \(every .* and 100\.00% .* got 5\.00%"):
        fit_recipe(seen, 0.05, LLAVA, PROMPTS)
    for ratio in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"flop_ratio must be in \(0, 1\), got"):
            fit_recipe(seen, ratio, LLAVA, PROMPTS)


def test_the_samples_own_prompts_are_what_costs(model: PreTrainedModel, samples: list[dict[str, Any]]) -> None:
    calls = []
    found = calibrate_fitprune(model, samples, flop_ratio=0.7, after_call=lambda: calls.append(1))
    assert len(calls) == 2
    assert found.num_samples == 3
    # One token more or less, of 9 in one of three layers.
    assert found.flop_ratio == pytest.approx(0.7, abs=0.04)
    shape = model_shape(model.config)
    prompts = []
    for sample in samples:
        for mask, ids in zip(sample["attention_mask"], sample["input_ids"], strict=True):
            visual = int((ids == model.config.image_token_id).sum())
            prompts.append(Workload(int(mask.sum()) - visual, visual))
    assert found.flop_ratio == compare(shape, prompts, FitPrune(found.recipe), None, "paper").ratio
    assert "forward" not in model.__dict__
    later = calibrate_fitprune(model, samples, flop_ratio=0.8, first_layer=1)
    assert later.method_for(model).layers == (2,)


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl", "internvl"])
def test_every_family_is_calibrated_and_drops_by_its_recipe(family: str) -> None:
    model = CASES[family].build()
    inputs = make_inputs(CASES[family], model, ONE_AND_TWO)
    found = calibrate_fitprune(model, [inputs], flop_ratio=0.6)
    assert found.flop_ratio == pytest.approx(0.6, abs=0.04)
    method = found.method_for(model)
    with prune(model, method) as pruning:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    for item in pruning.last.items:
        assert item.num_kept == method.schedule(item.num_visual_tokens)[-1].num_keep < item.num_visual_tokens


def test_a_calibration_is_saved_loaded_and_refused_for_another_model(
    model: PreTrainedModel, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = calibrate_fitprune(model, samples, flop_ratio=0.6)
    path = tmp_path / "recipe.json"
    found.save(path)
    loaded = FitPruneCalibration.load(path)
    assert loaded == found
    assert loaded.method_for(model) == FitPrune(path)
    with prune(model, f"fitprune:recipe={path}") as pruning:
        model(**samples[0])
    stages = {item.num_visual_tokens: FitPrune(path).schedule(item.num_visual_tokens) for item in pruning.last.items}
    assert [item.num_kept for item in pruning.last.items] == [
        stages[item.num_visual_tokens][-1].num_keep for item in pruning.last.items
    ]
    other = CASES["llava"].build()
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    for stranger in (other, CASES["llava_next"].build()):
        with pytest.raises(CalibrationError, match="calibration must be of this model"):
            loaded.method_for(stranger)
        with pytest.raises(CalibrationError, match="calibration must be of this model"):
            prune(stranger, FitPrune(path)).__enter__()


def test_a_file_is_written_whole_or_not_at_all(
    seen: AttentionSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.json"
    found = fit_recipe(seen, 0.5, LLAVA, PROMPTS)
    found.save(path)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        fit_recipe(seen, 0.3, LLAVA, PROMPTS).save(path)
    assert FitPruneCalibration.load(path) == found
    assert [each.name for each in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("change", [{"more": 1}, {"recipe": None}, {"recipe": {}}, {"format": "another"}])
def test_other_fields_are_refused(seen: AttentionSamples, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "recipe.json"
    fit_recipe(seen, 0.5, LLAVA, PROMPTS).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match="must be a FitPrune calibration that divprune saved"):
        FitPruneCalibration.load(path)


def test_a_choice_costs_the_rows_of_attention_that_it_reads() -> None:
    shape, method = LLAVA.language, FitPrune(FitPruneRecipe((4, 3), 10))
    schedule = DropSchedule(10, method.schedule(10))
    assert selection_flop(shape, method, schedule, 5) == 2 * 4096 * (15 * 15 + 11 * 11)
