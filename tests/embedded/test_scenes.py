"""Scenes: the same seed gives the same picture, splits never share a scene, objects are where the description says."""

import hashlib

import numpy as np
import pytest

from divprune.embedded import scene
from divprune.embedded.drawing import render
from divprune.embedded.scenes import COLORS, IMAGE_SIZE, PATTERNS, REGIONS, SHAPES, Split, split_of
from tools.embedded.labels import object_masks

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def digest(seed: int, split: Split) -> str:
    return hashlib.sha256(render(scene(seed, split)).tobytes()).hexdigest()


def test_same_seed_gives_same_scene_and_pixels() -> None:
    assert scene(7) == scene(7)
    assert digest(7, "test") == digest(7, "test")
    assert scene(7).image.size == (IMAGE_SIZE, IMAGE_SIZE)
    assert np.array_equal(np.asarray(scene(7).image), render(scene(7)))


def test_description_of_a_seed_is_pinned() -> None:
    """The committed weights and accuracies speak of these very scenes."""
    first = scene(0, "test")
    assert [item.name for item in first.objects] == [
        "white square",
        "blue square",
        "purple triangle",
        "green circle",
        "cyan square",
        "orange star",
    ]
    assert digest(0, "test")[:16] == "f43607f8212f52a3"


def test_splits_are_disjoint_by_construction() -> None:
    for split in SPLITS:
        assert all(split_of(scene(seed, split).objects) == split for seed in range(300))


def test_splits_are_disjoint_by_hash() -> None:
    digests = {split: {digest(seed, split) for seed in range(300)} for split in SPLITS}
    assert all(len(found) == 300 for found in digests.values())
    assert len(set().union(*digests.values())) == 900


def test_split_does_not_depend_on_object_order() -> None:
    objects = scene(3, "train").objects
    assert split_of(objects) == split_of(objects[::-1])


def test_scenes_cover_the_whole_range() -> None:
    scenes = [scene(seed, "train") for seed in range(400)]
    objects = [item for one in scenes for item in one.objects]
    assert {len(one.objects) for one in scenes} == {1, 2, 3, 4, 5, 6}
    assert {item.color for item in objects} == set(COLORS)
    assert {item.shape for item in objects} == set(SHAPES)
    assert {item.region for item in objects} == set(REGIONS)
    assert {item.size for item in objects} == {"small", "large"}
    assert {one.background.pattern for one in scenes} == set(PATTERNS)


def test_masks_do_not_overlap_and_lie_around_their_centres() -> None:
    for seed in range(60):
        one = scene(seed)
        masks = object_masks(one)
        assert masks.sum(axis=0).max() == 1
        for mask, item in zip(masks, one.objects, strict=True):
            rows, columns = np.nonzero(mask)
            assert abs((rows.min() + rows.max()) / 2 - item.center_y) <= 0.3 * item.radius
            assert abs((columns.min() + columns.max()) / 2 - item.center_x) <= 0.3 * item.radius
            assert len(rows) > 60


def test_object_pixels_have_the_named_colour() -> None:
    palette = np.array(list(COLORS.values()))
    for seed in range(60):
        one = scene(seed)
        pixels = render(one).astype(int)
        for mask, item in zip(object_masks(one), one.objects, strict=True):
            typical = np.median(pixels[mask], axis=0)
            nearest = int(np.abs(palette - typical).sum(axis=1).argmin())
            assert tuple(COLORS)[nearest] == item.color


def test_objects_stand_out_from_the_background() -> None:
    for seed in range(100):
        one = scene(seed)
        pixels = render(one).astype(int)
        behind = pixels[~object_masks(one).any(axis=0)].mean(axis=0)
        assert all(np.abs(np.array(item.rgb) - behind).sum() > 60 for item in one.objects)


@pytest.mark.parametrize(("seed", "split", "message"), [(-1, "test", "seed must be"), (0, "tset", "split must be")])
def test_bad_arguments_are_refused(seed: int, split: Split, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene(seed, split)
