"""How many tokens stay: by distance, by modality, by item, for one call or all."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from divprune import DivPrune, PruningConfig, attach, get_method, prune
from divprune.budget import budget
from divprune.methods import ItemContext, Method
from divprune.selection import select
from tests.support.models.every_family import CASES, features, make_inputs
from tests.support.subject import MIXED, ONE_AND_TWO

CASE = CASES["llava"]


def report_of(model: Any, inputs: dict[str, Any], method: Any, **settings: Any) -> Any:
    with prune(model, method, **settings) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    return pruning.last


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("ceiling", [{}, {"num_keep": 3}, {"keep_ratio": 0.3}])
def test_picks_end_where_they_come_nearer_than_min_distance(layer: int, ceiling: dict[str, Any]) -> None:
    model = CASE.build()
    inputs = make_inputs(CASE, model, ONE_AND_TWO)
    whole = report_of(model, inputs, DivPrune(layer=layer), keep_ratio=1.0)
    tokens = [item.kept_tokens for item in whole.items] if layer else features(CASE, model, "image", inputs)
    ends = [select(each, keep_ratio=1.0).distance_when_chosen for each in tokens]
    # Between the distances of two picks: rounding does not decide.
    distance = float((ends[0][4] + ends[0][5]) / 2)
    report = report_of(model, inputs, f"divprune:min_distance={distance},layer={layer}", **ceiling)
    most = [budget(len(each), **ceiling) if ceiling else len(each) for each in tokens]
    expected = [min(top, int((each >= distance).sum())) for top, each in zip(most, ends, strict=True)]
    assert [item.num_kept for item in report.items] == expected
    assert expected[0] == min(most[0], 5)
    assert len(set(expected)) > 1 or ceiling == {"num_keep": 3}
    full = select(tokens[0], num_keep=expected[0]).selection_order
    assert report.items[0].selection_order.tolist() == full.tolist()


def test_third_party_counts_see_the_tokens() -> None:
    class Long(DivPrune):
        count = "adaptive"
        finds_count = Method.finds_count

        def adaptive_count(self, visual_tokens: torch.Tensor, context: ItemContext) -> int:
            lengths = visual_tokens.norm(dim=-1)
            return int((lengths >= lengths.median()).sum())

    model = CASE.build()
    inputs = make_inputs(CASE, model, ONE_AND_TWO)
    lengths = [each.norm(dim=-1) for each in features(CASE, model, "image", inputs)]
    report = report_of(model, inputs, Long())
    assert [item.num_kept for item in report.items] == [int((each >= each.median()).sum()) for each in lengths]


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=1"])
def test_a_keep_ratio_by_modality_and_by_item(method: str) -> None:
    case = CASES["qwen2_5_vl"]
    model = case.build()
    inputs = make_inputs(case, model, MIXED)
    total = [(item.modality, item.num_visual_tokens) for item in report_of(model, inputs, method).items]
    assert {modality for modality, _ in total} == {"image", "video"}

    def kept(keep_ratio: Any) -> list[int]:
        return [item.num_kept for item in report_of(model, inputs, method, keep_ratio=keep_ratio).items]

    by_modality = {"image": 0.5, "video": 0.2}
    assert kept(by_modality) == [budget(count, keep_ratio=by_modality[modality]) for modality, count in total]
    only_video = [count if modality == "image" else budget(count, keep_ratio=0.2) for modality, count in total]
    assert kept({"video": 0.2}) == only_video
    ratios = [0.1 + 0.3 * number for number in range(len(total))]
    assert kept(ratios) == [budget(count, keep_ratio=ratio) for ratio, (_, count) in zip(ratios, total, strict=True)]
    with pytest.raises(ValueError, match=rf"keep_ratio must have one entry an item, {len(total)} here, got 1"):
        kept([0.5])


def test_one_call_is_pruned_otherwise() -> None:
    model = CASE.build()
    inputs = make_inputs(CASE, model, ONE_AND_TWO)
    pruning = attach(model, keep_ratio=0.3)
    model.generate(**inputs, max_new_tokens=1)
    usual, total = [item.num_kept for item in pruning.last.items], pruning.last.items[0].num_visual_tokens

    def kept() -> list[int]:
        model.generate(**inputs, max_new_tokens=1)
        return [item.num_kept for item in pruning.last.items]

    with pruning.override([1.0, 0.5, 0.1]):
        assert kept() == [total, round(0.5 * total), round(0.1 * total)]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(kept).result() == usual
        with pruning.override(num_keep=2, order="selection"):
            assert kept() == [2, 2, 2]
        assert kept() == [total, round(0.5 * total), round(0.1 * total)]
    mistakes: list[tuple[Any, str]] = [
        ([], "a fraction, or some"),
        ([0.5, 2.0], "must be in"),
        ({"sound": 1}, "a fraction, or some"),
    ]
    for wrong, message in mistakes:
        with pytest.raises(ValueError, match=message), pruning.override(wrong):
            pass
    with pytest.raises(TypeError, match="rate"), pruning.override(rate=0.5):
        pass
    with pytest.raises(ValueError, match="method must stay what it is"), pruning.override(method="random"):
        pass
    assert kept() == usual
    pruning.detach()


def test_configs_that_do_not_go_together_are_refused() -> None:
    for settings in ({"keep_ratio": [0.5], "num_keep": 2}, {"keep_ratio": {"image": 0.5}, "scope": "sample"}):
        with pytest.raises(ValueError, match="keep_ratio must be one number beside num_keep and with scope='sample'"):
            PruningConfig(DivPrune(), **settings)
    with pytest.raises(ValueError, match="min_distance must be a distance of at least 0, got -1"):
        get_method("divprune:min_distance=-1")
    with pytest.raises(ValueError, match="keep_ratio must be fields of the PruningConfig"):
        PruningConfig.parse(PruningConfig(DivPrune()), keep_ratio=0.5)
