"""Bad arguments are refused with the argument, what is expected and what was seen."""

import pytest
import torch

from divprune.selection import select

ROWS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("visual_tokens", "arguments", "error", "message"),
    [
        (ROWS[0], {"num_keep": 1}, ValueError, r"visual_tokens must have shape .* got \(4,\)"),
        (ROWS[None, None], {"num_keep": 1}, ValueError, "visual_tokens must have shape"),
        (ROWS[:0], {"num_keep": 1}, ValueError, "visual_tokens must hold at least one token"),
        (ROWS[:, :0], {"num_keep": 1}, ValueError, "visual_tokens must hold at least one token"),
        (ROWS.int(), {"num_keep": 1}, TypeError, "visual_tokens must be floating point, got torch.int32"),
        (ROWS.tolist(), {"num_keep": 1}, TypeError, "visual_tokens must be a torch.Tensor, got list"),
        (ROWS, {"num_keep": 11}, ValueError, "num_keep must be at most the number of visual tokens, 10, got 11"),
        (ROWS, {"num_keep": 0}, ValueError, "num_keep must be at least 1, got 0"),
        (ROWS, {"num_keep": 2.5}, TypeError, "num_keep must be an integer, got 2.5"),
        (ROWS, {}, ValueError, "exactly one of keep_ratio and num_keep, got neither"),
        (ROWS, {"num_keep": 2, "keep_ratio": 0.2}, ValueError, "exactly one of keep_ratio and num_keep"),
        (ROWS, {"keep_ratio": 1.5}, ValueError, r"keep_ratio must be in \(0, 1\], got 1.5"),
        (ROWS, {"num_keep": 2, "metric": "dot"}, ValueError, "metric must be one of 'cosine', 'l1', 'l2', got 'dot'"),
        (ROWS, {"num_keep": 2, "min_distance": -1}, ValueError, "min_distance must be at least 0, got -1"),
        (ROWS, {"num_keep": 2, "min_distance": torch.nan}, ValueError, "min_distance must be at least 0, got nan"),
        (ROWS, {"num_keep": 2, "min_distance": "far"}, TypeError, "min_distance must be a number, got 'far'"),
        (ROWS, {"num_keep": 2, "valid_mask": torch.ones(10)}, TypeError, "valid_mask must be a bool tensor"),
        (ROWS, {"num_keep": 2, "valid_mask": torch.ones(9).bool()}, ValueError, r"valid_mask must have shape \(10,\)"),
        (ROWS, {"num_keep": 2, "valid_mask": torch.zeros(10).bool()}, ValueError, "at least one token in every row"),
        (ROWS, {"num_keep": 4, "valid_mask": torch.arange(10) < 3}, ValueError, "visual tokens, 3, got 4"),
    ],
)
def test_bad_arguments(visual_tokens, arguments, error, message):
    with pytest.raises(error, match=message):
        select(visual_tokens, **arguments)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("metric", ["cosine", "l1", "l2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_refused(value, metric, dtype):
    rows = ROWS.to(dtype).clone()
    rows[7, 2] = value
    with pytest.raises(ValueError, match=r"visual_tokens must be finite, got NaN or infinity"):
        select(rows, num_keep=2, metric=metric)
