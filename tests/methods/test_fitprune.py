"""FitPrune on its own: the rule of its calibration, its recipe, and its ranking."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divprune import get_method
from divprune.errors import CalibrationError
from divprune.methods import FitPrune, FitPruneRecipe, ItemContext, method_title
from divprune.methods.fitprune_recipe import KIND, AttentionMass, fitted, num_deleted
from divprune.records import write_calibration

PUBLISHED = FitPruneRecipe((262, 153, 80, 19, 13, 1, 2))
"""How the paper's recipe for 90 % begins."""


def mass(visual: list[list[float]], text: list[list[float]]) -> AttentionMass:
    return AttentionMass(torch.tensor(visual), torch.tensor(text))


def test_tokens_that_both_can_spare_are_deleted_and_stay_lost() -> None:
    seen = mass(
        [[1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 2.0, 2.0], [1.0, 1.0, 1.0, 7.0]],
        [[4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 7.0], [1.0, 1.0, 1.0, 7.0]],
    )
    # 6.25 of 10 must stay. Layer 0: visual tokens spare 0 and 1, the text 1 and 3: both spare 1.
    # Layer 1: 5 of 10 are lost with token 1, visual tokens spare nothing more. Layer 2: 9 are left, both spare 0 and 2.
    assert num_deleted(seen, 0.375).tolist() == [1, 0, 2]


def test_the_threshold_itself_is_allowed() -> None:
    seen = mass([[1.0, 1.0, 2.0, 4.0]], [[1.0, 1.0, 2.0, 4.0]])
    assert [num_deleted(seen, alpha).tolist() for alpha in (0.0, 0.12, 0.125, 0.25, 0.5, 1.0)] == [
        [0], [0], [1], [2], [3], [4],
    ]  # fmt: skip


def test_what_receives_nothing_goes_at_any_threshold() -> None:
    assert num_deleted(mass([[0.0, 1.0, 0.0]], [[0.0, 1.0, 2.0]]), 0.0).tolist() == [1]


def test_everything_goes_at_once_at_threshold_one() -> None:
    seen = mass([[0.3, 0.1, 0.2]] * 2, [[0.7, 0.1, 0.1]] * 2)
    assert num_deleted(seen, 1.0).tolist() == [3, 0]


def by_hand(visual: list[list[int]], text: list[list[int]], alpha: Fraction) -> list[int]:
    """Every prefix tried, in exact numbers."""
    left, counts = set(range(len(visual[0]))), []

    def spared(received: list[int]) -> set[int]:
        order = sorted(left, key=lambda token: (received[token], token))
        allowed = [
            count
            for count in range(len(order) + 1)
            if count == 0 or sum(received[token] for token in order[count:]) >= (1 - alpha) * sum(received)
        ]
        return set(order[: max(allowed)])

    for from_visual, from_text in zip(visual, text, strict=True):
        gone = spared(from_visual) & spared(from_text)
        left -= gone
        counts.append(len(gone))
    return counts


ROWS = st.lists(st.lists(st.integers(1, 30), min_size=5, max_size=5), min_size=3, max_size=3)


@given(ROWS, ROWS, st.integers(0, 16))
@settings(max_examples=200)
def test_the_rule_equals_one_written_by_hand(visual: list[list[int]], text: list[list[int]], sixteenths: int) -> None:
    alpha = Fraction(sixteenths, 16)
    found = num_deleted(mass(visual, text), float(alpha))
    assert found.tolist() == by_hand(visual, text, alpha)
    assert found.sum() <= 5


def test_counts_are_averaged_over_items_by_shares_of_their_tokens() -> None:
    two_of_four = mass([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    one_then_none = mass([[0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]])
    assert num_deleted(two_of_four, 0.0).tolist() == [2, 0]
    assert num_deleted(one_then_none, 0.0).tolist() == [0, 1]
    # Of 3 tokens on average: 1/4 of 3 behind layer 0, half of 3 behind layer 1, rounded.
    assert fitted([two_of_four, one_then_none], 0.0) == FitPruneRecipe((1, 1), 3)
    assert fitted([two_of_four], 0.0, "a model", first_layer=2) == FitPruneRecipe((0, 0, 2, 0), 4, "a model")
    assert fitted([mass([[1.0, 1.0]], [[1.0, 1.0]])], 0.0) is None


def test_the_published_recipe_gives_its_counts() -> None:
    method = FitPrune(PUBLISHED)
    assert method.layers == (1, 2, 3, 4, 5, 6, 7)
    assert method.schedule(576) == ((1, 314), (2, 161), (3, 81), (4, 62), (5, 49), (6, 48), (7, 46))


def test_counts_are_scaled_to_other_sizes() -> None:
    # Gone of 288: 131, 207.5, 247.5, 257, 263.5, 264, 265, each rounded to even.
    left = [stage.num_keep for stage in FitPrune(PUBLISHED).schedule(288)]
    assert left == [157, 80, 40, 31, 24, 24, 23]
    for total in (1, 2, 7, 2880):
        left = [stage.num_keep for stage in FitPrune(PUBLISHED).schedule(total)]
        assert left == sorted(left, reverse=True)
        assert all(0 <= count <= total for count in left)
    assert FitPrune(FitPruneRecipe((4,), 4)).schedule(9) == ((1, 0),)


def test_only_layers_that_drop_are_named() -> None:
    method = FitPrune(FitPruneRecipe((0, 3, 0, 2, 0), 8))
    assert method.layers == (2, 4)
    assert method.schedule(8) == ((2, 5), (4, 3))


def test_the_largest_products_stay() -> None:
    # Two heads, two words. The larger of the heads for each word: 1/2 1/4 1/4 1/8 and 0 1/4 1/4 1/8; on average 1/4,
    # 1/4, 1/4, 1/8. The larger of the heads' averages would be 1/4, 1/8, 1/4, 1/8 and put 1 behind 3.
    one = [[0.5, 0.25, 0.25, 0.125], [0.0, 0.0, 0.25, 0.125]]
    two = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.25, 0.0, 0.0]]
    text = torch.tensor([one, two])
    # Times 1/4, 1/4, 1/2, 7/16: 4/64, 4/64, 8/64, 3.5/64. The first two are equal.
    visual = torch.tensor([0.25, 0.25, 0.5, 0.4375])
    context = ItemContext(layer=1, text_attention=text, visual_peak_attention=visual)
    method = FitPrune(PUBLISHED)
    assert method.select(torch.zeros(4, 3), 4, context).tolist() == [2, 0, 1, 3]
    assert method.select(torch.zeros(4, 3), 2, context).tolist() == [2, 0]
    for need in ("text_attention", "visual_peak_attention"):
        with pytest.raises(ValueError, match=rf"context\.{need} must be given to method 'fitprune'"):
            method.select(torch.zeros(4, 3), 2, dataclasses.replace(context, **{need: None}))
    without_text = dataclasses.replace(context, text_attention=text[:, :0])
    with pytest.raises(ValueError, match="the prompt must hold text"):
        method.select(torch.zeros(4, 3), 2, without_text)


def test_counts_of_ones_own_are_saved_and_fit_any_model(tmp_path: Path) -> None:
    PUBLISHED.save(tmp_path / "published.json")
    assert FitPruneRecipe.load(tmp_path / "published.json") == PUBLISHED
    assert get_method(f"fitprune:recipe={tmp_path / 'published.json'}").calibrated_on is None


def written(folder: Path, recipe: Any) -> Path:
    write_calibration(folder / "recipe.json", KIND, {"recipe": recipe})
    return folder / "recipe.json"


def test_a_recipe_comes_by_name_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = FitPruneRecipe((2, 0, 1), 9, "some model")
    path = written(tmp_path, dataclasses.asdict(recipe))
    method = get_method(f"fitprune:recipe={path}")
    assert method == FitPrune(path) == FitPrune(recipe)
    assert hash(method) == hash(FitPrune(recipe))
    assert method != FitPrune(FitPruneRecipe((2, 0, 1), 9))
    assert method.calibrated_on == "some model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get_method("fitprune:recipe=~/recipe.json") == method
    assert method_title(f"fitprune:recipe={path}") == "fitprune:recipe=recipe.json"
    # What it was read from is forgotten: equal counts are equal methods, and JSON can hold them.
    assert json.loads(json.dumps(dataclasses.asdict(method)))["recipe"]["drops"] == [2, 0, 1]


@pytest.mark.parametrize("spec", ["fitprune", "fitprune:recipe= "])
def test_without_a_recipe_the_remedy_is_told(spec: str) -> None:
    with pytest.raises(ValueError, match=r"divprune calibrate fitprune .*--output FILE|needs a value: recipe="):
        get_method(spec)
    with pytest.raises(ValueError, match="recipe must be given: method 'fitprune' is calibrated for each model"):
        FitPrune()
    with pytest.raises(TypeError, match="recipe must be a FitPruneRecipe or the path of a file, got 3"):
        FitPrune(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((),), ValueError, "add up to between 1 and num_visual_tokens, 576"),
        (((0, 0),), ValueError, "add up to between 1"),
        (((3, -1),), ValueError, "counts of at least 0"),
        (((3, 2), 4), ValueError, "num_visual_tokens, 4, got"),
        (((3.0,), 4), TypeError, "must be integers"),
        (((True,), 4), TypeError, "must be integers"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FitPruneRecipe(*arguments)


@pytest.mark.parametrize(
    "recipe", [None, 3, [], {}, {"drops": "abc"}, {"drops": [1], "more": 2}, {"drops": [9], "num_visual_tokens": 4}]
)
def test_files_with_another_recipe_are_refused(tmp_path: Path, recipe: Any) -> None:
    with pytest.raises(CalibrationError, match="must be a FitPrune calibration that divprune saved"):
        FitPrune(written(tmp_path, recipe))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": "divprune VTW calibration, version 1"}', "\x00"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(CalibrationError, match="must be a FitPrune calibration that divprune saved"):
        get_method(f"fitprune:recipe={tmp_path / 'file.json'}")
    with pytest.raises(CalibrationError, match=r"no such FitPrune calibration: .*; make one with `divprune calibrate`"):
        get_method(f"fitprune:recipe={tmp_path / 'nowhere.json'}")
    with pytest.raises(CalibrationError, match="must be a FitPrune calibration"):
        FitPrune(tmp_path)
