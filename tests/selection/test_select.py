"""`select` picks what Algorithm 1 picks, by every way it has."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from divprune.selection import approximate_distances, first_pick, max_min, predicted, select
from divprune.selection.dense import dense_picks
from divprune.selection.distances import METRICS, Distances
from divprune.selection.lazy import LazyGreedy
from divprune.selection.reference import reference_distances, reference_select
from tests.selection.cases import KINDS, tokens
from tests.selection.equality import wrong_pick

GENERATED = settings(derandomize=True, deadline=None, max_examples=300)
kinds, seeds, shares = st.sampled_from(KINDS), st.integers(0, 10_000), st.floats(0, 1)
sizes = st.tuples(kinds, st.integers(1, 70), st.integers(1, 40), seeds, shares)


@pytest.fixture(params=["dense", "predicted", "predicted without bfloat16", "lazy", "lazy without bfloat16"])
def way(request, monkeypatch):
    """Send every size the same way, on hardware that multiplies bfloat16 numbers fast or does not."""
    kind, _, without = request.param.partition(" ")
    monkeypatch.setattr(max_min, "LAZY_FROM", dict.fromkeys(METRICS, 1 if kind == "lazy" else 10**9))
    monkeypatch.setattr(max_min, "PREDICTED_FROM", 1 if kind == "predicted" else 10**9)
    monkeypatch.setattr(max_min, "SPARING_SHARE", 1)
    # However badly it predicts.
    monkeypatch.setattr(predicted, "FEWEST_FEATURES", 1)
    monkeypatch.setattr(predicted, "TELLING_CORRELATION", -2)
    for module in (approximate_distances, predicted):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: not without)
    return request.param


def check(kind, total, width, seed, share, metric="cosine"):
    rows, count = tokens(kind, total, width, seed), max(1, round(share * total))
    picked = select(rows, num_keep=count, metric=metric)
    order = picked.selection_order.tolist()
    assert len(order) == picked.num_kept == count
    assert wrong_pick(rows, order, metric) is None
    assert picked.kept_indices.tolist() == sorted(order)
    distance = reference_distances(rows, metric)[order][:, order]
    expected = [torch.inf] + [float(distance[step, :step].min()) for step in range(1, count)]
    # Cosine distances are absolute; l1 and l2 scale with the tokens.
    torch.testing.assert_close(picked.distance_when_chosen, torch.tensor(expected), atol=2e-6, rtol=2e-6)
    assert (picked.distance_when_chosen.diff()[1:] <= 0).all()


@pytest.mark.parametrize("seed", range(0, 1500, 100))
def test_equals_the_reference_on_seeded_cases(way, seed):
    for case in range(seed, seed + 100):
        draw = torch.Generator().manual_seed(case)
        total, width = (int(torch.randint(1, most, (), generator=draw)) for most in (90, 48))
        metric = METRICS[case // len(KINDS) % len(METRICS)]
        check(KINDS[case % len(KINDS)], total, width, case, float(torch.rand((), generator=draw)), metric)


@given(sizes)
@GENERATED
def test_equals_the_reference_on_generated_cases(size):
    check(*size)


@pytest.mark.parametrize("total", [127, 511, 513, 1000, 1100, 2300])
@pytest.mark.parametrize("kind", ["gaussian", "clusters", "duplicates", "constant", "near_constant"])
@pytest.mark.parametrize("fast", [True, False])
def test_lazy_way_is_right_around_the_borders_of_its_blocks(kind, total, fast, monkeypatch):
    monkeypatch.setattr(approximate_distances, "multiplies_bfloat16", lambda device: fast)
    rows = tokens(kind, total, 24, total)
    for num_candidates, count in ((2, 40), (16, total // 2), (64, total)):
        greedy = LazyGreedy(Distances(rows, "cosine"))
        greedy.run(count, num_candidates=num_candidates)
        assert wrong_pick(rows, greedy.picks) is None


@given(sizes)
@GENERATED
def test_picks_are_nested(size):
    rows = tokens(*size[:4])
    order = select(rows, num_keep=len(rows)).selection_order
    count = max(1, round(size[4] * len(rows)))
    assert torch.equal(select(rows, num_keep=count).selection_order, order[:count])


@given(sizes, st.integers(-20, 20))
@GENERATED
def test_positive_scaling_changes_nothing(size, exponent):
    rows = tokens(*size[:4])
    count = max(1, round(size[4] * len(rows)))
    scaled = select(rows * 2.0**exponent, num_keep=count)
    assert torch.equal(scaled.selection_order, select(rows, num_keep=count).selection_order)


@pytest.mark.parametrize("seed", range(100))
def test_permuting_the_tokens_permutes_the_picks(seed, way):
    rows = tokens("gaussian", 60, 16, seed)
    nearest = reference_distances(rows).fill_diagonal_(torch.inf).amin(dim=1)
    # Two tokens that are each other's nearest tie for the seed; the lower index wins, and a permutation shows.
    if nearest.topk(2).values.diff().abs() < 1e-6:
        return
    permutation = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    picked = select(rows[permutation], num_keep=20).selection_order
    assert torch.equal(permutation[picked], select(rows, num_keep=20).selection_order)


@pytest.mark.parametrize("seed", range(50))
def test_copies_come_last_in_ascending_order(seed, way):
    originals = tokens("gaussian", 20, 16, seed)
    rows = torch.cat([originals, originals])
    order = select(rows, num_keep=40).selection_order
    assert sorted((order[:20] % 20).tolist()) == list(range(20))
    assert order[20:].tolist() == sorted(order[20:].tolist())


def test_ties_go_to_the_lowest_index(way):
    assert select(torch.ones(50, 4), num_keep=5).selection_order.tolist() == [0, 1, 2, 3, 4]
    assert select(torch.eye(50), num_keep=5).selection_order.tolist() == [0, 1, 2, 3, 4]
    assert select(torch.zeros(50, 4), num_keep=5).selection_order.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_is_computed_in_float32_at_least(dtype, way):
    rows = tokens("gaussian", 80, 32, 0).mul(300).to(dtype)
    picked = select(rows, num_keep=20)
    assert picked.distance_when_chosen.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert wrong_pick(rows, picked.selection_order.tolist()) is None


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_extreme_lengths_neither_overflow_nor_vanish(scale, way):
    rows = tokens("gaussian", 60, 32, 0)
    rows[::2] *= scale
    assert wrong_pick(rows.double(), select(rows, num_keep=20).selection_order.tolist()) is None


def test_batch_equals_loop(way):
    batch = torch.stack([tokens(kind, 48, 16, 5) for kind in KINDS])
    together = select(batch, num_keep=12)
    for index, rows in enumerate(batch):
        alone = select(rows, num_keep=12)
        assert wrong_pick(rows, together.selection_order[index].tolist()) is None
        torch.testing.assert_close(together.distance_when_chosen[index], alone.distance_when_chosen)
        assert together.max_min_distance[index] == pytest.approx(alone.max_min_distance, abs=1e-6)


@pytest.mark.parametrize("padding", [0.0, torch.nan, 1e30])
def test_ragged_batch_equals_its_rows_without_padding(padding, way):
    lengths = (1, 7, 40, 23)
    batch = torch.full((4, 40, 16), padding)
    mask = torch.zeros(4, 40, dtype=torch.bool)
    for index, length in enumerate(lengths):
        mask[index, 40 - length :] = True
        batch[index, mask[index]] = tokens("gaussian", length, 16, index)
    together = select(batch, keep_ratio=0.3, valid_mask=mask)
    for index, length in enumerate(lengths):
        alone = select(batch[index, mask[index]], keep_ratio=0.3)
        row = together.row(index)
        assert torch.equal(row.selection_order, alone.selection_order + 40 - length)
        assert torch.equal(row.kept_indices, alone.kept_indices + 40 - length)
        assert (together.kept_indices[index, row.num_kept :] == -1).all()
        assert together.distance_when_chosen[index, row.num_kept :].isnan().all()


def test_min_distance_stops_early(way):
    rows = tokens("offset", 60, 16, 0)
    everything = select(rows, num_keep=60)
    stopped = select(rows, num_keep=60, min_distance=0.05)
    count = int((everything.distance_when_chosen >= 0.05).sum())
    assert 1 < count < 60
    assert stopped.num_kept == count
    assert torch.equal(stopped.selection_order, everything.selection_order[:count])
    assert stopped.max_min_distance >= 0.05
    assert select(rows, num_keep=60, min_distance=3).num_kept == 1
    batch = select(torch.stack([rows, rows * 2]), num_keep=60, min_distance=0.05)
    assert batch.num_kept.tolist() == [count, count]


def test_max_min_distance_is_the_smallest_pairwise_distance(way):
    rows = tokens("gaussian", 60, 16, 3)
    picked = select(rows, num_keep=12)
    block = reference_distances(rows)[picked.kept_indices][:, picked.kept_indices].fill_diagonal_(torch.inf)
    assert picked.max_min_distance == pytest.approx(float(block.min()), abs=1e-6)
    assert select(rows, num_keep=1).max_min_distance is None


def test_same_input_same_picks_and_no_gradient(way):
    rows = tokens("clusters", 80, 16, 0).requires_grad_()
    first, second = select(rows, num_keep=30), select(rows, num_keep=30)
    assert torch.equal(first.selection_order, second.selection_order)
    assert torch.equal(first.distance_when_chosen, second.distance_when_chosen)
    assert not first.distance_when_chosen.requires_grad


def test_autocast_and_reduced_precision_do_not_reach_the_products(way):
    rows = tokens("gaussian", 200, 64, 0)
    expected = select(rows, num_keep=50)
    backend = torch.backends.mkldnn.matmul
    before, backend.fp32_precision = backend.fp32_precision, "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            picked = select(rows, num_keep=50)
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = before
    assert torch.equal(picked.distance_when_chosen, expected.distance_when_chosen)


def test_the_reference_is_algorithm_1_on_an_example():
    # Angles in degrees. Nearest neighbours are 10, 10, 50 and 80 away, so 140 is the seed; 0 is farthest from it; 60 is
    # 60 away from 0, and 50 is 50 away.
    angles = torch.tensor([60.0, 50.0, 0.0, 140.0]).deg2rad()
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert reference_select(rows, 4).tolist() == [3, 2, 0, 1]
    assert select(rows, num_keep=4).selection_order.tolist() == [3, 2, 0, 1]


def test_copies_tie_whatever_a_product_does_to_their_last_bits() -> None:
    rows = tokens("gaussian", 40, 8, 3).double()
    copies = [29, 7, 31]
    rows[copies] = rows[7].clone()

    class Uneven(Distances):
        def matrix(self) -> torch.Tensor:
            exact = super().matrix()
            # As if the lowest copy were a little nearer to all others than the rest.
            exact[:, 7, :] -= 1e-15
            exact[:, :, 7] -= 1e-15
            exact[:, 7, copies] = exact[:, copies, 7] = 0.0
            return exact

    picks, _ = dense_picks(Uneven(rows[None], "cosine"), 40)
    order = [pick for pick in picks[0].tolist() if pick in copies]
    assert order == sorted(copies)
    assert picks[0].tolist()[-2:] == [29, 31]


class LargestTensor(TorchDispatchMode):
    """The most numbers in any tensor that is made inside."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["gaussian", "clusters"])
def test_memory_grows_with_the_tokens_not_with_their_square(monkeypatch, kind, metric, bfloat16):
    # In small: what stands for 32 million numbers here is 64 rows of 1,000.
    monkeypatch.setattr(first_pick, "BLOCK_NUMBERS", 64_000)
    monkeypatch.setattr(first_pick, "MOST_ROWS", 128)
    monkeypatch.setattr(max_min, "MATRIX_BYTES", 0)
    monkeypatch.setattr(approximate_distances, "multiplies_bfloat16", lambda device: bfloat16)
    for total in (1000, 4000):
        rows = tokens(kind, total, 8, 0)
        with LargestTensor() as largest:
            picked = select(rows, num_keep=40, metric=metric)
        assert largest.numbers <= 64_000
        assert wrong_pick(rows, picked.selection_order.tolist(), metric) is None


def photograph(total: int, width: int) -> torch.Tensor:
    """Tokens of which a part of the features tells who is near whom: few directions, seen through many features."""
    draw = torch.Generator().manual_seed(total)
    directions = torch.randn(12, width, generator=draw)
    return torch.randn(total, 12, generator=draw) @ directions + 0.1 * torch.randn(total, width, generator=draw)


@pytest.fixture
def predicts_few_features(monkeypatch):
    """Predict also where the whole matrix would be as cheap."""
    monkeypatch.setattr(predicted, "FEWEST_FEATURES", 256)


@pytest.mark.usefixtures("predicts_few_features")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_predicted_picks_are_exact_and_take_few_rows(monkeypatch, bfloat16):
    monkeypatch.setattr(predicted, "multiplies_bfloat16", lambda device: bfloat16)
    rows, measured = photograph(600, 512), []

    class Counted(Distances):
        def block(self, rows, columns):
            # A slice is the sample that says whether to predict.
            measured.append(0 if isinstance(rows, slice) else len(rows))
            return super().block(rows, columns)

        def matrix(self):
            raise AssertionError("the matrix is what this way avoids")

    picks, when_chosen = predicted.predicted_picks(Counted(rows, "cosine"), 60)
    assert wrong_pick(rows, picks, "cosine") is None
    assert when_chosen[0] == torch.inf
    assert sum(measured) < 300, "half of the matrix"
    few, _ = predicted.predicted_picks(Distances(rows, "cosine"), 60, min_distance=when_chosen[20] - 1e-3)
    assert wrong_pick(rows, few, "cosine") is None
    assert 21 <= len(few) < 60
    # A prediction that is wrong throughout costs rows and changes nothing.
    monkeypatch.setattr(predicted, "_part", lambda tokens: torch.randn(len(tokens), 8))
    monkeypatch.setattr(predicted, "TELLING_CORRELATION", -2)
    found, _ = predicted.predicted_picks(Distances(rows, "cosine"), 60)
    assert len(found) == 60
    assert wrong_pick(rows, found, "cosine") is None


@pytest.mark.usefixtures("predicts_few_features")
def test_bfloat16_predicts_where_no_part_of_the_features_tells(monkeypatch):
    monkeypatch.setattr(predicted, "multiplies_bfloat16", lambda device: True)
    rows = torch.randn(600, 512, generator=torch.Generator().manual_seed(0))
    distances = Distances(rows, "cosine")
    assert predicted._telling_part(distances).shape == (600, 512)
    picks, _ = predicted.predicted_picks(distances, 60)
    assert wrong_pick(rows, picks, "cosine") is None


@pytest.mark.usefixtures("predicts_few_features")
def test_nothing_is_predicted_where_it_would_not_help(monkeypatch):
    monkeypatch.setattr(predicted, "multiplies_bfloat16", lambda device: False)
    noise, copies, narrow = torch.randn(400, 512), photograph(400, 512), photograph(400, 64)
    copies[300] = copies[7]
    for rows in (noise, copies, narrow, torch.ones(400, 512), torch.zeros(400, 512), photograph(1, 512)):
        assert predicted.predicted_picks(Distances(rows, "cosine"), 1) is None
        assert wrong_pick(rows, select(rows, num_keep=min(40, len(rows))).selection_order.tolist(), "cosine") is None


@pytest.mark.usefixtures("predicts_few_features")
def test_every_set_of_a_batch_goes_its_own_way(monkeypatch):
    batch = torch.stack([photograph(400, 512), torch.randn(400, 512, generator=torch.Generator().manual_seed(0))])
    mask = torch.ones(2, 400, dtype=torch.bool)
    mask[0, 350:] = False
    batch[0, 350:] = torch.nan
    together = select(batch, keep_ratio=0.1, valid_mask=mask)
    for row in range(2):
        alone = select(batch[row, mask[row]], keep_ratio=0.1)
        assert together.row(row).selection_order.tolist() == alone.selection_order.tolist()
    assert together.num_kept.tolist() == [35, 40]
