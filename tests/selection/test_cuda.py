"""Selection on a GPU, as it is there: the kernel, plain torch and the rows that both avoid."""

import warnings

import pytest
import torch

from divprune.selection import fused, max_min, select
from divprune.selection.distances import Distances
from divprune.selection.fused_rules import difference_to_plain_rules
from tests.selection.cases import KINDS, tokens
from tests.selection.equality import wrong_pick

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
SIZES = (1, 17, 576, 1152, 2880, 6272)


@pytest.fixture(params=["kernel", "plain"])
def way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(max_min, "runs_on", lambda device: False)
    return request.param


def test_the_kernels_pass_their_checks_here():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.runs_on(torch.device("cuda"))
        assert fused.runs_on(torch.device("cuda"), difference_to_plain_rules)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("total", SIZES)
def test_cuda_equals_the_reference(way, total, kind):
    rows = tokens(kind, total, 64, total)
    count = max(1, total // 10)
    order = select(rows.cuda(), num_keep=count).selection_order
    assert order.is_cuda
    assert wrong_pick(rows, order.tolist()) is None


@pytest.mark.parametrize("metric", ["l1", "l2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_other_metrics_and_formats(way, metric, dtype):
    rows = tokens("gaussian", 300, 48, 1).to(dtype)
    assert wrong_pick(rows, select(rows.cuda(), num_keep=60, metric=metric).selection_order.tolist(), metric) is None


def test_most_tokens_that_fit(way):
    rows = tokens("gaussian", fused.MOST_TOKENS, 32, 0)
    ours = select(rows.cuda(), num_keep=50)
    assert ours.selection_order[:1].tolist() == select(rows, num_keep=1).selection_order.tolist()
    assert ours.num_kept == 50


def test_a_graph_replays_the_picks_of_other_tokens():
    kinds = [tokens(kind, 200, 32, 3).cuda() for kind in ("gaussian", "clusters", "duplicates")]
    held = kinds[0][None].clone()
    assert fused.runs_on(held.device)
    fused.fused_picks(Distances(held, "cosine"), 40)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        picks, _ = fused.fused_picks(Distances(held, "cosine", check=False), 40)
    for rows in kinds:
        held.copy_(rows[None])
        graph.replay()
        assert wrong_pick(rows.cpu(), picks[0].tolist()) is None


def test_the_same_picks_every_time():
    rows = tokens("near_constant", 900, 64, 0).cuda()
    first = select(rows, num_keep=200).selection_order
    for _ in range(20):
        assert torch.equal(select(rows, num_keep=200).selection_order, first)
