"""Methods side by side: turns, cache sizes, quantiles, and peak memory in a process of its own."""

import os
from typing import Any

import pytest
from torch import Tensor
from transformers import PreTrainedModel

from divprune.config import PruningConfig
from divprune.efficiency import (
    UNPRUNED_VARIANT,
    Variant,
    get_architecture,
    in_own_process,
    random_inputs,
    random_model,
    run_bench,
)
from divprune.methods import VTW, DivPrune
from tests.efficiency.in_child import allocate, fail
from tests.support.shapes import small_config

BYTES_PER_COLUMN = 2 * 32 * 2  # keys and values, 32 wide, bfloat16


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_model(small_config())


@pytest.fixture(scope="module")
def inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    return random_inputs(model, get_architecture("llava-1.5-7b"), num_text_tokens=6)


def test_rows_of_three_variants(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    variants = [
        UNPRUNED_VARIANT,
        Variant("four", PruningConfig(DivPrune(), num_keep=4)),
        Variant("vtw", PruningConfig(VTW(layer=1))),
    ]
    calls: list[int] = []
    measurements = run_bench(model, inputs, variants, num_new_tokens=3, repeats=2, after_call=lambda: calls.append(1))
    assert len(calls) == 3 * (1 + 2)
    unpruned, four, vtw = (measurement.as_row() for measurement in measurements)
    assert [row["method"] for row in (unpruned, four, vtw)] == ["unpruned", "four", "vtw"]
    assert [row["num_kept"] for row in (unpruned, four, vtw)] == [None, 4, 0]
    # Two layers each: 6 words and 16, 4, or 16 and then no visual tokens.
    assert [row["kv_cache_bytes"] / BYTES_PER_COLUMN for row in (unpruned, four, vtw)] == [44, 20, 22 + 6]
    assert "selection_median_seconds" not in unpruned
    for row in (four, vtw):
        assert 0 < row["selection_median_seconds"] < row["ttft_median_seconds"]
        assert row["prefill_p20_seconds"] <= row["prefill_median_seconds"] <= row["prefill_p80_seconds"]
        assert row["ttft_median_seconds"] < row["end_to_end_median_seconds"]
        assert row["decode_median_tokens_per_second"] > 0
    assert "__divprune__" not in str(model.__dict__)


def test_time_limit_ends_after_the_first_round(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    (measurement,) = run_bench(model, inputs, [UNPRUNED_VARIANT], num_new_tokens=2, repeats=50, max_seconds=0)
    assert len(measurement.timings) == 1


def test_too_few_tokens_or_rounds_are_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="num_new_tokens must be at least 2, to time decoding, got 1"):
        run_bench(model, inputs, [UNPRUNED_VARIANT], num_new_tokens=1, repeats=1)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        run_bench(model, inputs, [UNPRUNED_VARIANT], num_new_tokens=2, repeats=0)


@pytest.mark.slow
def test_peak_memory_is_the_calls_own() -> None:
    small, large = (in_own_process(allocate, mebibytes) / 2**20 for mebibytes in (50, 250))
    assert large - small == pytest.approx(200, abs=40)


@pytest.mark.slow
def test_processes_are_fresh_and_their_errors_come_through() -> None:
    with pytest.raises(ValueError, match=r"in process \d+") as caught:
        in_own_process(fail)
    assert str(os.getpid()) not in str(caught.value)
