"""What figures compute from records before they draw."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divprune.embedded import scene
from divprune.figures.kept_on_image import VEIL, faded
from divprune.figures.prefill import parts_of
from divprune.figures.record_views import at_share, curves, short_names
from divprune.figures.samples import image_of, patches, tokens
from divprune.figures.score_flops import _spread
from divprune.figures.tokens_tsne import embedded
from divprune.records import Record, load_record


def row(method: str, matching: str | None, keep_ratio: float | None, cost: float, score: float) -> dict[str, object]:
    refusal = "never" if score < 0 else None
    named = {"method": method, "matching": matching, "keep_ratio": keep_ratio, "refusal": refusal}
    return named | {"flop_percent": cost, "mean_percent": score}


SUITE = Record(
    "eval-scenes",
    {},
    [
        row("unpruned", None, 1.0, 100, 99),
        row("picture withheld", None, 0.0, 4, 14),
        row("a", "tokens", 0.5, 47, 80),
        row("a", "tokens", 0.098, 11, 60),
        row("a", "flops", 0.098, 11, 60),
        row("b", None, None, 21, 90),
        row("b", "tokens", 0.098, 11, 50),
        row("c", None, None, 52, 70),
        row("d", "tokens", 0.098, 11, -1),
    ],
    {},
)


def test_curves_run_from_cheap_to_dear_without_repetition_or_refusal() -> None:
    costs = {method: [one["flop_percent"] for one in rows] for method, rows in curves(SUITE).items()}
    assert costs == {"a": [11, 47], "b": [11], "c": [52]}


def test_names_hold_only_the_parameters_that_tell_methods_apart() -> None:
    methods = ["vtw:layer=2", "random", "sparsevlm:tokens=64,first_layer=1", "sparsevlm:tokens=192,first_layer=1"]
    shown = ["vtw", "random", "sparsevlm tokens=64", "sparsevlm tokens=192"]
    assert short_names(methods) == dict(zip(methods, shown, strict=True))
    assert short_names(["random", "random:seed=3"]) == {"random": "random", "random:seed=3": "random seed=3"}


def test_each_method_has_one_row_at_the_share_and_the_best_is_last() -> None:
    assert [(one["method"], one["mean_percent"]) for one in at_share(SUITE)] == [("b", 50), ("a", 60), ("c", 70)]
    # Not told a number at this share, b says it itself.
    assert [one["method"] for one in at_share(SUITE, 0.5)] == ["c", "a", "b"]


def test_names_are_pushed_apart_and_keep_their_order() -> None:
    assert _spread([90, 20, 91], 4) == [87, 20, 91]
    assert _spread([10, 10, 10], 2) == [10, 8, 6]


def test_parts_of_the_first_token_add_up() -> None:
    times = {"prefill_median_seconds": 2.0, "selection_median_seconds": 0.5, "ttft_median_seconds": 4.0}
    assert parts_of(times) == (2.0, 0.5, 1.5)
    assert parts_of({"prefill_median_seconds": 2.0, "ttft_median_seconds": 4.0}) == (2.0, 0.0, 2.0)


def test_kept_patches_stay_and_dropped_ones_fade_to_their_mean() -> None:
    image = np.random.default_rng(0).random((8, 12, 3))
    kept = np.zeros((2, 3), dtype=bool)
    kept[1, 2] = True
    shown = faded(image, kept)
    assert shown.shape == image.shape
    assert np.array_equal(shown[4:, 8:], image[4:, 8:])
    expected = VEIL + (1 - VEIL) * image[:4, 4:8].mean(axis=(0, 1))
    assert np.allclose(shown[:4, 4:8], expected)


def test_patches_are_cut_row_by_row() -> None:
    image = np.arange(4 * 6 * 3, dtype=float).reshape(4, 6, 3)
    cut = patches(image, (2, 3))
    assert cut.shape == (2, 3, 2, 2, 3)
    assert np.array_equal(cut[1, 2], image[2:, 4:])


def test_samples_are_read_as_they_were_measured(results: Path) -> None:
    sample = next(one for one in load_record(results / "samples.json").rows if one["case"] == "sample")
    assert np.array_equal(np.round(image_of(sample) * 255), np.asarray(scene(0, "test").image))
    assert tokens(sample).shape[0] == 256
    assert np.isfinite(tokens(sample)).all()


def test_a_transparent_picture_is_read_too() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 2), (255, 0, 0, 255)).save(buffer, "PNG")
    image = image_of({"picture_png_base64": base64.b64encode(buffer.getvalue()).decode()})
    assert image.shape == (2, 4, 3)
    assert image[0, 0].tolist() == [1, 0, 0]


def test_the_plane_keeps_neighbours_together_and_is_the_same_every_time() -> None:
    draw = np.random.default_rng(0)
    centres = np.repeat(np.eye(2, 8), 20, axis=0)
    points = embedded(centres + 0.01 * draw.standard_normal((40, 8)))
    assert points.shape == (40, 2)
    assert np.array_equal(points, embedded(centres + 0.01 * np.random.default_rng(0).standard_normal((40, 8))))
    first, second = points[:20], points[20:]
    apart = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert apart > max(np.linalg.norm(group - group.mean(axis=0), axis=1).mean() for group in (first, second))


@pytest.mark.parametrize(("method", "merges"), [("divprune", False), ("fastv", False), ("pooling", True)])
def test_recorded_distances_are_those_of_what_is_kept(results: Path, method: str, merges: bool) -> None:
    """By plain numpy; what merged tokens have become is at other distances than what was at their places."""
    record = load_record(results / "samples.json")
    sample = next(one for one in record.rows if one["case"] == "sample")
    measured = next(one for one in record.rows if one["case"] == "method" and one["method"] == method)
    kept = tokens(sample)[sample["kept_indices"][method]]
    unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    distances = (1 - unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
    assert (measured["max_min_distances"][0] == pytest.approx(distances.min(), rel=0.02)) != merges
