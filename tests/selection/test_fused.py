"""The selection kernel picks what Algorithm 1 picks, under Triton's interpreter: `make test-kernel`."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from divprune.selection import fused, max_min, select
from divprune.selection.dense import dense_picks
from divprune.selection.distances import METRICS, Distances, cosine_similarities
from divprune.selection.fused_rules import difference_to_plain_rules, rule_picks
from divprune.selection.greedy import greedy_picks, plain_picks
from divprune.selection.objectives import Closeness, Dispersion, Relevance, Suppression
from divprune.selection.reference import reference_distances
from tests.selection.cases import KINDS, tokens
from tests.selection.equality import wrong_pick

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs triton, and TRITON_INTERPRET=1 before its import: make test-kernel",
)
MANY, SOME = (settings(derandomize=True, deadline=None, max_examples=count) for count in (200, 60))
kinds, seeds, shares = st.sampled_from(KINDS), st.integers(0, 10_000), st.floats(0, 1)
sizes = st.tuples(kinds, st.integers(1, 24), st.integers(1, 40), seeds, shares)


@pytest.fixture(autouse=True)
def on_every_device(monkeypatch):
    """Let `select` use the kernel on the CPU too, where it is interpreted."""
    monkeypatch.setattr(max_min, "runs_on", lambda device: True)


def picks_of(rows, count, **options):
    picks, when_chosen = fused.fused_picks(Distances(rows[None], "cosine"), count, **options)
    return picks[0].tolist(), when_chosen[0]


@given(sizes, st.sampled_from(METRICS))
@MANY
def test_equals_the_reference_on_generated_cases(size, metric):
    kind, total, width, seed, share = size
    rows, count = tokens(kind, total, width, seed), max(1, round(share * total))
    picked = select(rows, num_keep=count, metric=metric)
    order = picked.selection_order.tolist()
    assert len(order) == picked.num_kept == count
    assert wrong_pick(rows, order, metric) is None
    distance = reference_distances(rows, metric)[order][:, order]
    expected = [torch.inf] + [float(distance[step, :step].min()) for step in range(1, count)]
    torch.testing.assert_close(picked.distance_when_chosen, torch.tensor(expected), atol=2e-6, rtol=2e-6)
    assert (picked.distance_when_chosen.diff()[1:] <= 0).all()


@given(
    st.lists(sizes, min_size=1, max_size=3),
    st.sampled_from([0.0, torch.nan, 1e30]),
    shares,
    st.sampled_from(METRICS),
)
@SOME
def test_ragged_batches_equal_the_reference_row_by_row(rows_of_batch, padding, keep_ratio, metric):
    width, total = rows_of_batch[0][2], max(size[1] for size in rows_of_batch)
    batch = torch.full((len(rows_of_batch), total, width), padding)
    mask = torch.zeros(len(rows_of_batch), total, dtype=torch.bool)
    for index, (kind, length, _, seed, _) in enumerate(rows_of_batch):
        places = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:length].sort().values
        mask[index, places] = True
        batch[index, places] = tokens(kind, length, width, seed)
    together = select(batch, keep_ratio=max(keep_ratio, 1e-3), metric=metric, valid_mask=mask)
    for index, (_, length, _, _, _) in enumerate(rows_of_batch):
        places = mask[index].nonzero().squeeze(1)
        row = together.row(index)
        assert row.num_kept == max(1, round(max(keep_ratio, 1e-3) * length))
        assert mask[index, row.selection_order].all()
        order = torch.searchsorted(places, row.selection_order.contiguous()).tolist()
        assert wrong_pick(batch[index, places], order, metric) is None
        assert (together.selection_order[index, row.num_kept :] == -1).all()


@given(sizes, shares)
@SOME
def test_stops_before_what_is_nearer_than_a_distance(size, place):
    kind, total, width, seed, _ = size
    rows = tokens(kind, total, width, seed)
    everything, distances = picks_of(rows, total)
    # A distance that occurs: what is as far as it is still picked.
    stop = float(distances[1:][int(place * (total - 2))]) if total > 1 else 0.5
    count = int((distances >= stop).sum())
    picks, when_chosen = picks_of(rows, total, min_distance=stop)
    assert picks == everything[:count] + [0] * (total - count)
    assert torch.equal(when_chosen[:count], distances[:count])
    assert when_chosen[count:].isneginf().all()
    assert select(rows, num_keep=total, min_distance=stop).selection_order.tolist() == everything[:count]


@given(sizes)
@SOME
def test_a_copy_comes_after_the_first_of_its_kind(size):
    kind, total, width, seed, _ = size
    rows = tokens(kind, total, width + 4, seed)
    order = select(torch.cat([rows, rows]), num_keep=2 * total).selection_order.tolist()
    where = {token: step for step, token in enumerate(order)}
    assert all(where[token] < where[token + total] for token in range(total))


@pytest.mark.parametrize("rows", [torch.ones(50, 4), torch.eye(50), torch.zeros(50, 4)])
def test_ties_go_to_the_lowest_index(rows):
    assert select(rows, num_keep=5).selection_order.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("total", [1, 15, 16, 17, 63, 64, 65, 129])
@pytest.mark.parametrize("kind", ["gaussian", "clusters"])
def test_sizes_around_the_borders_of_a_block(total, kind):
    rows = tokens(kind, total, 24, total)
    order, _ = picks_of(rows, total)
    assert wrong_pick(rows, order) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype(dtype):
    rows = tokens("gaussian", 40, 32, 0).mul(300).to(dtype)
    picked = select(rows, num_keep=20)
    assert picked.distance_when_chosen.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert wrong_pick(rows, picked.selection_order.tolist()) is None


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_extreme_lengths_neither_overflow_nor_vanish(scale):
    rows = tokens("gaussian", 40, 32, 0)
    rows[::2] *= scale
    assert wrong_pick(rows.double(), select(rows, num_keep=20).selection_order.tolist()) is None


class Uneven(Distances):
    """As if a product gave each number two values, by where it stands."""

    def matrix_and_scale(self):
        matrix, scale = super().matrix_and_scale()
        places = torch.arange(len(self))
        return matrix * (1 + (places * 3 % 7 - places.unsqueeze(1) % 5) * torch.finfo(matrix.dtype).eps), scale


@pytest.mark.parametrize("seed", range(30))
def test_copies_and_nearest_pairs_tie_whatever_a_product_does_to_their_last_bits(seed):
    rows = tokens("gaussian", 30, 8, seed)
    rows[[29, 11, 17]] = rows[7].clone()
    picks, _ = fused.fused_picks(Uneven(rows[None], "cosine"), 30)
    order = picks[0].tolist()
    assert [pick for pick in order if pick in (7, 11, 17, 29)] == [7, 11, 17, 29]
    assert order[-3:] == [11, 17, 29]
    # The seed of two tokens that are each other's nearest is the lower one.
    pair = torch.eye(8)[[4, 4]] + torch.tensor([[0.0], [1e-2]]) * torch.eye(8)[[5, 5]]
    picks, _ = fused.fused_picks(Uneven(pair[None], "cosine"), 2)
    assert picks[0].tolist() == [0, 1]


class Waits(TorchDispatchMode):
    """The operations that read a value back from the device."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        if name in self.NAMES:
            self.seen.append(name)
        return function(*arguments, **(keywords or {}))


def test_nothing_waits_for_the_device(monkeypatch):
    class Launched:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append(grid)

    launches = []
    monkeypatch.setattr("divprune.selection.fused_kernel.max_min_kernel", Launched())
    rows = tokens("gaussian", 40, 8, 0)
    with Waits() as waits:
        fused.fused_picks(Distances(rows[None], "cosine", check=False), 10, min_distance=0.1)
    assert waits.seen == []
    assert launches == [(3,)]
    # What a CPU's tensor hands over without a function that can be seen.
    handed, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda each: handed.append(each.shape) or tolist(each))
    with Waits() as waits:
        select(rows, num_keep=10)
    # To know that all values are finite: the shortest and the longest token, at once.
    assert waits.seen == []
    assert handed == [(2,)]
    assert len(launches) == 2


def test_plain_torch_agrees_with_the_kernel_on_the_set_of_the_check():
    assert fused.difference_to_plain(torch.device("cpu")) is None


def test_the_check_sees_other_picks(monkeypatch):
    def swapped(*arguments, **options):
        picks, distance = dense_picks(*arguments, **options)
        return picks.roll(1, dims=1), distance

    monkeypatch.setattr(fused, "dense_picks", swapped)
    assert fused.difference_to_plain(torch.device("cpu")) == "other picks"


RULES = {
    "relevance": lambda near, scores: Relevance(scores, near, 0.3),
    "suppression": lambda near, scores: Suppression(scores, near.clamp(0, 1)),
    "dispersion": lambda near, scores: Dispersion(1 - near),
    "closeness": lambda near, scores: Closeness(1 - near),
}


@given(sizes, st.sampled_from(sorted(RULES)), st.integers(1, 3), st.booleans(), st.booleans())
@MANY
def test_rules_of_one_row_a_pick_give_the_picks_of_plain_torch(size, name, batch, is_double, has_first):
    kind, total, width, seed, share = size
    rows = torch.stack([tokens(kind, total, width, seed + number) for number in range(batch)])
    rows = rows.double() if is_double else rows
    near, scores = cosine_similarities(rows), rows[..., 0].abs()
    count = max(1, round(share * total))
    first = torch.arange(batch) % total if has_first else None
    # The same numbers by the same operations, so equal to the last bit.
    expected = plain_picks(RULES[name](near, scores), count, first)
    assert torch.equal(rule_picks(RULES[name](near, scores).row_rule(), count, first), expected)


def test_greedy_picks_use_the_kernel_where_there_is_a_rule(monkeypatch):
    asked = []
    monkeypatch.setattr("divprune.selection.fused_rules.runs_on", lambda device, check: asked.append(check) or True)
    near, scores = cosine_similarities(tokens("gaussian", 12, 5, 0)[None]), torch.rand(1, 12)
    for rule in RULES.values():
        objective = rule(near, scores)
        before = [gain.clone() for gain in (objective.gains(),)]
        assert torch.equal(greedy_picks(objective, 7), plain_picks(rule(near, scores), 7))
        # The loop of plain torch would have used the objective up.
        assert torch.equal(objective.gains(), before[0])
    assert asked == [difference_to_plain_rules] * len(RULES)


def test_plain_torch_agrees_with_the_rules_on_the_sets_of_the_check(monkeypatch):
    assert difference_to_plain_rules(torch.device("cpu")) is None
    monkeypatch.setattr("divprune.selection.greedy.plain_picks", lambda *some: plain_picks(*some).roll(1, dims=1))
    assert difference_to_plain_rules(torch.device("cpu")) == "other picks by Relevance"


@pytest.mark.parametrize("capability", [75, 80, 90, 100])
def test_compiles_for_gpus_without_one(capability, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run(
        [sys.executable, "-m", "tests.selection.compile_kernel", str(capability)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        check=True,
        timeout=250,
    )
