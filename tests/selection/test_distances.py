"""Distances of whole sets: every shape of panel, and lengths that squares of float32 would lose."""

import pytest
import torch

from divprune.selection.distances import ALL, METRICS, Distances
from divprune.selection.reference import reference_distances
from tests.selection.cases import tokens

EPSILON = torch.finfo(torch.float32).eps


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("total", "width"), [(1, 3), (95, 127), (96, 128), (97, 129), (200, 1025), (289, 2049)])
def test_the_matrix_holds_every_distance_whatever_the_panels(metric: str, total: int, width: int) -> None:
    rows = tokens("gaussian", total, width, total).double()
    matrix, expected = Distances(rows, metric).matrix(), reference_distances(rows, metric)
    # Sums of `width` products in float64, each rounded once, of numbers no larger than the largest distance or 1; the
    # reference rounds cosines to 12 digits.
    bound = 0.5e-12 + 4 * width * torch.finfo(torch.float64).eps * max(1.0, float(expected.max()))
    assert float((matrix - expected).abs().max()) <= bound
    # What a mirror copies is the same to the last bit.
    below = torch.ones(total, total).tril(-96).bool()
    assert torch.equal(matrix[below], matrix.T[below])


@pytest.mark.parametrize("width", [1, 127, 128, 129, 1000, 4096])
def test_scales_are_exact_to_the_last_digits_of_float32(width: int) -> None:
    rows = tokens("gaussian", 50, width, width)
    exact = rows.double().norm(dim=1)
    found = 1 / Distances(rows, "cosine")._inverse_lengths.double()
    # At most 128 squares are added up in float32, which halves their error in the root; then it is rounded twice.
    assert float((found / exact - 1).abs().max()) <= (128 / 2 + 2) * EPSILON


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-20, 1e-10, 1.0, 1e15, 1e25])
def test_tokens_of_any_length_have_the_distances_of_their_directions(length: float) -> None:
    rows = tokens("gaussian", 30, 20, 1)
    scaled = rows.clone()
    scaled[::2] *= length
    expected = reference_distances(scaled.double())
    # A float32 token has its own rounding, one product has as many as there are features.
    bound = 30 * EPSILON
    assert float((Distances(scaled, "cosine").block(ALL, ALL).double() - expected).abs().max()) <= bound
    assert float((Distances(scaled, "cosine").matrix().double() - expected).abs().max()) <= bound


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_among_zeros_too(value: float) -> None:
    rows = torch.zeros(40, 200)
    rows[7, 150] = value
    with pytest.raises(ValueError, match=r"got NaN or infinity at \[7\]"):
        Distances(rows, "cosine")
