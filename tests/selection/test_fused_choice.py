"""Where the selection kernel is used, and what happens where it does not work; no GPU and no Triton needed."""

import warnings

import pytest
import torch

from divprune.selection import fused, max_min, select
from tests.selection.cases import tokens

CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    monkeypatch.setattr(fused, "find_spec", lambda name: object())
    fused._passes_check.cache_clear()
    yield
    fused._passes_check.cache_clear()


def test_the_kernel_is_used_on_cuda_where_triton_is_and_the_check_passes(monkeypatch):
    checked = []
    monkeypatch.setattr(fused, "difference_to_plain", checked.append)
    assert not fused.runs_on(torch.device("cpu"))
    assert checked == []
    assert fused.runs_on(CUDA)
    assert fused.runs_on(CUDA)
    assert checked == [CUDA]
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    assert not fused.runs_on(CUDA)
    monkeypatch.setattr(fused, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert not fused.runs_on(CUDA)


def test_a_failed_check_warns_once_and_leaves_plain_torch(monkeypatch):
    monkeypatch.setattr(fused, "difference_to_plain", lambda device: "other picks")
    with pytest.warns(RuntimeWarning, match=r"cuda:0 uses plain torch.*\(other picks\).*C compiler"):
        assert not fused.runs_on(CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fused.runs_on(CUDA)


def test_an_error_of_the_compiler_is_a_failed_check(monkeypatch):
    def without_compiler(device):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fused, "difference_to_plain", without_compiler)
    with pytest.warns(RuntimeWarning, match="RuntimeError: Failed to find C compiler"):
        assert not fused.runs_on(CUDA)


@pytest.mark.parametrize(
    ("dtype", "total", "is_used"),
    [
        (torch.float32, 16_384, True),
        (torch.float32, 16_385, False),
        (torch.float64, 11_585, True),
        (torch.float64, 11_586, False),
        (torch.bfloat16, 16_384, True),
    ],
)
def test_sets_that_are_too_large_for_it_avoid_the_matrix(monkeypatch, dtype, total, is_used):
    asked = []

    def kernel(distances, num_keep, valid, counts, min_distance):
        asked.append((num_keep, valid, counts, min_distance))
        return torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)

    monkeypatch.setattr(max_min, "runs_on", lambda device: True)
    monkeypatch.setattr(max_min, "fused_picks", kernel)
    rows = tokens("gaussian", 64, 1, 0).repeat(total // 64 + 1, 1)[:total].to(dtype)
    assert select(rows, num_keep=1).num_kept == 1
    assert asked == ([(1, None, [1], None)] if is_used else [])


def test_the_kernel_is_told_counts_mask_and_where_to_stop(monkeypatch):
    asked = []

    def kernel(distances, num_keep, valid, counts, min_distance):
        asked.append((tuple(distances.tokens.shape), num_keep, valid.tolist(), counts, min_distance))
        return torch.tensor([[0, 1], [1, 0]]), torch.tensor([[torch.inf, 0.5], [torch.inf, -torch.inf]])

    monkeypatch.setattr(max_min, "runs_on", lambda device: True)
    monkeypatch.setattr(max_min, "fused_picks", kernel)
    mask = torch.tensor([[True, True, True, True], [False, True, True, False]])
    picked = select(torch.ones(2, 4, 3), keep_ratio=0.5, valid_mask=mask, min_distance=0.1)
    assert asked == [((2, 4, 3), 2, mask.tolist(), [2, 1], 0.1)]
    assert picked.num_kept.tolist() == [2, 1]
    assert picked.selection_order.tolist() == [[0, 1], [1, -1]]


def test_each_kernel_has_its_own_check(monkeypatch):
    monkeypatch.setattr(fused, "difference_to_plain", lambda device: None)
    with pytest.warns(RuntimeWarning, match="other picks by Relevance"):
        assert not fused.runs_on(CUDA, lambda device: "other picks by Relevance")
    assert fused.runs_on(CUDA)


@pytest.mark.parametrize("total", [1, 16, 17, 576, 1024, 1025, 6272, 16_384])
def test_a_block_holds_a_row_and_its_threads_exist(total):
    options = fused.compile_options(total)
    assert options["BLOCK"] >= total
    for name in ("BLOCK", "ROWS", "WIDTH_BLOCK", "num_warps"):
        assert options[name] & (options[name] - 1) == 0
    assert 1 <= options["num_warps"] <= 32
    assert options["ROWS"] * options["BLOCK"] <= max(4096, options["BLOCK"])
