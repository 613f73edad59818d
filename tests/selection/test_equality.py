"""The comparison that the other tests rely on must itself be able to fail."""

import torch

from divprune.selection.reference import reference_select
from tests.selection.cases import KINDS, tokens
from tests.selection.equality import wrong_pick


def test_the_reference_passes():
    for number, kind in enumerate(KINDS):
        rows = tokens(kind, 30, 8, number)
        assert wrong_pick(rows, reference_select(rows, 30).tolist()) is None


def test_wrong_seed_wrong_pick_and_repeated_pick_fail():
    rows = tokens("gaussian", 30, 8, 0)
    order = reference_select(rows, 10).tolist()
    assert "pick 0" in (wrong_pick(rows, [order[1], order[0], *order[2:]]) or "")
    unpicked = next(token for token in range(30) if token not in order)
    for step in range(10):
        changed = [*order[:step], unpicked, *order[step + 1 :]]
        assert f"pick {step} " in (wrong_pick(rows, changed) or "")
    assert wrong_pick(rows, [*order[:9], order[0]]) == "a token is picked twice"


def test_first_tokens_and_random_tokens_fail():
    rows = tokens("gaussian", 50, 16, 1)
    assert wrong_pick(rows, list(range(10)))
    assert wrong_pick(rows, torch.randperm(50, generator=torch.Generator().manual_seed(0))[:10].tolist())


def test_the_metric_matters():
    rows = tokens("gaussian", 40, 6, 2)
    assert wrong_pick(rows, reference_select(rows, 20, "l1").tolist(), "cosine")
