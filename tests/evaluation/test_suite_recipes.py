"""FitPrune in the scenes suite: calibrated on training scenes to what the other methods cost."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.efficiency.shapes import model_shape
from divprune.embedded import checkpoint_path, scene
from divprune.evaluation.scenes import fitprune_calibration
from divprune.evaluation.scenes.cases import suite_cases
from divprune.evaluation.scenes.fitprune_calibration import recipe_tailor
from divprune.evaluation.scenes.questions import batches
from divprune.evaluation.scenes.suite import Suite
from divprune.methods import FitPrune


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    folder: Path = checkpoint_path()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_each_share_has_a_recipe_of_equal_flops(embedded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitprune_calibration, "NUM_TRAINING_SCENES", 2)
    asked = []

    def noted(model: Any, processor: Any, scenes: Any) -> Any:
        asked.extend(scenes)
        return batches(model, processor, scenes)

    monkeypatch.setattr(fitprune_calibration, "batches", noted)
    suite = Suite(*embedded, 1)
    calibrators = {"fitprune": recipe_tailor(*embedded, suite.workload)}
    shape = model_shape(embedded[0].config)
    cases = suite_cases(["uniform", "fitprune"], shape, suite.workload, [0.5, 0.05], ["tokens", "flops"], calibrators)[
        2:
    ]
    uniform, fitted = cases[:4], cases[4:]
    assert [(case.matching, case.keep_ratio) for case in fitted] == [
        (matching, share) for matching in ("tokens", "flops") for share in (0.5, 0.05)
    ]
    assert all("compare at equal FLOPs" in (case.refusal or "") for case in fitted[:2])
    half, twentieth = fitted[2:]
    # One token more or less in one of four layers.
    assert half.flop_percent == pytest.approx(uniform[2].flop_percent, abs=0.25)
    assert isinstance(half.method, FitPrune)
    assert half.key != half.name
    assert "the FLOP target must lie between" in (twentieth.refusal or "")
    # Once for both shares, on scenes that are not asked about.
    assert asked == [scene(seed, "train") for seed in range(2)]
    rows = suite.run(fitted, with_cider=False)
    assert [row["refusal"] is None for row in rows] == [False, False, True, False]
    assert rows[2]["num_kept"] == half.method.schedule(256)[-1].num_keep
    assert rows[2]["flop_percent"] == half.flop_percent
    assert rows[2]["method"] == "fitprune"
