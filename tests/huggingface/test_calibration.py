"""VTW's layer is the first at which withdrawing the visual tokens changes little of what the model says next."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from divprune import VTW, prune
from divprune.calibration.vtw import VTWCalibration, calibrate_vtw, divergence
from divprune.errors import CalibrationError
from divprune.huggingface.fingerprint import fingerprint
from tests.support.handmade_layers import full_rows, run
from tests.support.layer_cases import none_at_all
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import ONE_AND_TWO


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return CASES["llava"].build()


@pytest.fixture(scope="module")
def samples(model: PreTrainedModel) -> list[dict[str, Any]]:
    return [make_inputs(CASES["llava"], model, rows) for rows in (ONE_AND_TWO, ONE_AND_TWO[:1])]


def by_hand(model: PreTrainedModel, samples: list[dict[str, Any]], layer: int) -> float:
    """Mean over all rows of KL(none from `layer` on || all tokens)."""
    divergences = []
    for row in [row for sample in samples for row in full_rows(model, sample)]:
        nothing = torch.arange(0)
        full = run(model, row, nothing, {}).logits[-1].log_softmax(-1)
        without = run(model, row, nothing, {layer: none_at_all}).logits[-1].log_softmax(-1)
        divergences.append(torch.nn.functional.kl_div(full, without, log_target=True, reduction="sum"))
    return float(torch.stack(divergences).mean())


def test_the_divergence_is_taken_under_what_is_predicted_without_the_image() -> None:
    # Two words, 1/2 and 1/2 with the image, 3/4 and 1/4 without: 3/4 log(3/2) + 1/4 log(1/2) = .1308. The other way
    # round it would be 1/2 log(2/3) + 1/2 log(2) = .1438.
    full, withdrawn = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.5, 0.5], [0.75, 0.25]))
    assert divergence(full, withdrawn).tolist() == pytest.approx([0.75 * log(1.5) - 0.25 * log(2)])


def test_the_first_layer_under_the_threshold_is_taken(model: PreTrainedModel, samples: list[dict[str, Any]]) -> None:
    first, second = (by_hand(model, samples, layer) for layer in (1, 2))
    assert first > second > 0.01
    found = calibrate_vtw(model, samples, threshold=(first + second) / 2, first_layer=1)
    assert (found.layer, found.num_samples) == (2, 3)
    assert found.divergences == pytest.approx({1: first, 2: second}, abs=1e-4)
    assert calibrate_vtw(model, samples, threshold=first * 1.01, first_layer=1).layer == 1
    assert list(calibrate_vtw(model, samples, threshold=first, first_layer=2).divergences) == [2]
    with pytest.raises(CalibrationError, match=r"no layer from 1 to 2 meets threshold 0\.001.* at layer 2; raise"):
        calibrate_vtw(model, samples, threshold=0.001, first_layer=1)
    assert "forward" not in model.__dict__


def test_a_calibration_is_saved_loaded_and_refused_for_another_model(
    model: PreTrainedModel, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = calibrate_vtw(model, samples, threshold=100.0, first_layer=1)
    found.save(tmp_path / "vtw.json")
    loaded = VTWCalibration.load(tmp_path / "vtw.json")
    assert loaded == found
    assert loaded.method_for(model) == VTW(layer=1)
    with prune(model, loaded.method_for(model)) as pruning:
        model(**samples[0])
    assert pruning.last.num_kept == 0
    other = CASES["llava"].build()
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    for stranger in (other, CASES["llava_next"].build()):
        with pytest.raises(CalibrationError, match="calibration must be of this model"):
            loaded.method_for(stranger)


def test_precision_does_not_make_another_model() -> None:
    model = CASES["llava"].build()
    assert fingerprint(model) == fingerprint(CASES["llava"].build().bfloat16())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "another"}', "null"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(CalibrationError, match="must be a VTW calibration that divprune saved"):
        VTWCalibration.load(tmp_path / "file.json")


def test_unknown_fields_are_refused(model: PreTrainedModel, samples: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "vtw.json"
    calibrate_vtw(model, samples, threshold=100.0, first_layer=1).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    with pytest.raises(CalibrationError, match="more"):
        VTWCalibration.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": []}, "samples must hold at least one prompt, got none"),
        ({"threshold": 0.0}, "threshold must be above 0, got 0.0"),
        ({"first_layer": 3}, "first_layer must be between 1 and 2 for this model, got 3"),
        ({}, "first_layer must be between 1 and 2 for this model, got 5"),
    ],
)
def test_bad_arguments_are_refused(
    model: PreTrainedModel, samples: list[dict[str, Any]], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate_vtw(model, **{"samples": samples, **arguments})
