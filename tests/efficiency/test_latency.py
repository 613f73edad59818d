"""Latencies: quantiles, taking turns, and what one measurement calls."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from divprune.efficiency import Latency, interleave, prefill_seconds


def test_quantiles_interpolate() -> None:
    latency = Latency((3.0, 1.0, 2.0, 5.0, 4.0, 6.0))
    assert latency.median == 3.5
    assert (latency.p20, latency.p80) == (2.0, 5.0)


def test_single_sample_is_all_quantiles() -> None:
    latency = Latency((0.5,))
    assert latency.p20 == latency.median == latency.p80 == 0.5


def test_measurements_take_turns_and_warm_up_is_left_out() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    first, second = interleave([lambda: measure("a"), lambda: measure("b")], repeats=2)
    assert "".join(calls) == "ababab"
    assert (first.samples, second.samples) == ((3.0, 5.0), (4.0, 6.0))


def test_time_limit_stops_after_the_first_round() -> None:
    (latency,) = interleave([lambda: 1.0], repeats=100, max_seconds=0.0)
    assert latency.samples == (1.0,)


def test_no_repeats_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        interleave([lambda: 1.0], repeats=0)


def test_prefill_is_one_greedy_token() -> None:
    seen: dict[str, Any] = {}
    model = SimpleNamespace(device=torch.device("cpu"), generate=lambda **arguments: seen.update(arguments))
    assert prefill_seconds(model, {"input_ids": "ids"}) >= 0  # type: ignore[arg-type]
    expected = {"input_ids": "ids", "max_new_tokens": 1, "min_new_tokens": 1, "do_sample": False, "num_beams": 1}
    assert seen == expected
