"""Dense labels for training the vision tower: what lies in each patch, from exact object masks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from divprune.embedded.drawing import coverage
from divprune.embedded.scenes import COLORS, IMAGE_SIZE, MAX_OBJECTS, REGIONS, SHAPES, Scene, SceneObject
from tools.embedded.model import NUM_VISUAL_TOKENS, PATCH_SIZE, PATCHES_PER_SIDE

IGNORED = -100  # the patch holds a sliver of an object: neither that object nor background
NUM_KINDS = len(COLORS) * len(SHAPES)
_MIN_PIXELS = 7  # of the 64 in a patch, for it to count as the object's
_COLOR_NAMES = tuple(COLORS)


MAX_PATCHES = 30  # more than any object touches
CLASS_SIZES: dict[str, int] = {
    "kind": NUM_KINDS + 1,  # colour and shape jointly: 1 + colour * number of shapes + shape
    "color": len(COLORS) + 1,
    "shape": len(SHAPES) + 1,
    "region": len(REGIONS) + 1,
    "same_color": MAX_OBJECTS + 1,  # how many objects have this object's colour, itself included
    "same_shape": MAX_OBJECTS + 1,
    "total": MAX_OBJECTS + 1,
    "extent": MAX_PATCHES + 1,  # how many patches are this object's
}
"""Labels of a patch and their number of classes; 0 is background everywhere."""


@dataclass(frozen=True)
class PatchLabels:
    """What lies in each patch of a batch of scenes."""

    classes: dict[str, torch.Tensor]  # by name in CLASS_SIZES: (batch, NUM_VISUAL_TOKENS) int64, IGNORED allowed
    is_center: torch.Tensor  # (batch, NUM_VISUAL_TOKENS) float32, 1 where the patch holds an object's centre
    present_kinds: torch.Tensor  # (batch, NUM_KINDS) float32, 1 where such an object is in the image


def kind_index(item: SceneObject) -> int:
    """Return the joint colour-shape class of an object, 0-based."""
    return _COLOR_NAMES.index(item.color) * len(SHAPES) + SHAPES.index(item.shape)


def patch_labels(scenes: list[Scene]) -> PatchLabels:
    """Label every patch of every scene."""
    kinds = np.zeros((len(scenes), NUM_KINDS), dtype=np.float32)
    owners, centers = zip(*(owners_of(item) for item in scenes), strict=True)
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in CLASS_SIZES}
    for row, (item, owner) in enumerate(zip(scenes, owners, strict=True)):
        kinds[row, [kind_index(thing) for thing in item.objects]] = 1
        for name, table in _tables(item, owner).items():
            columns[name].append(torch.from_numpy(table[owner]))
    return PatchLabels(
        classes={name: torch.stack(column) for name, column in columns.items()},
        is_center=torch.from_numpy(np.stack(centers)),
        present_kinds=torch.from_numpy(kinds),
    )


def _tables(item: Scene, owner: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """For each label, the class by owner: background first, then the objects, then IGNORED (owner -1)."""
    objects = item.objects
    columns = {
        "kind": [1 + kind_index(thing) for thing in objects],
        "color": [1 + _COLOR_NAMES.index(thing.color) for thing in objects],
        "shape": [1 + SHAPES.index(thing.shape) for thing in objects],
        "region": [1 + REGIONS.index(thing.region) for thing in objects],
        "same_color": [sum(other.color == thing.color for other in objects) for thing in objects],
        "same_shape": [sum(other.shape == thing.shape for other in objects) for thing in objects],
        "total": [len(objects)] * len(objects),
        "extent": [min(int((owner == place).sum()), MAX_PATCHES) for place in range(1, 1 + len(objects))],
    }
    return {name: np.array([0, *column, IGNORED], dtype=np.int64) for name, column in columns.items()}


def owners_of(item: Scene) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Per patch: 0 for background, 1 + the object's place in the scene, or -1; and whether it holds a centre.

    The patch that holds an object's centre is the object's even where a ring has its hole: counting reads it.
    """
    if not item.objects:
        return np.zeros(NUM_VISUAL_TOKENS, dtype=np.int64), np.zeros(NUM_VISUAL_TOKENS, dtype=np.float32)
    masks = object_masks(item)
    sides = (len(item.objects), PATCHES_PER_SIDE, PATCH_SIZE, PATCHES_PER_SIDE, PATCH_SIZE)
    pixels = masks.reshape(sides).sum(axis=(2, 4)).reshape(len(item.objects), NUM_VISUAL_TOKENS)
    most = pixels.max(axis=0)
    owner = np.where(most >= _MIN_PIXELS, 1 + pixels.argmax(axis=0), np.where(most > 0, -1, 0))
    is_center = np.zeros(NUM_VISUAL_TOKENS, dtype=np.float32)
    for place, thing in enumerate(item.objects):
        patch = thing.center_y // PATCH_SIZE * PATCHES_PER_SIDE + thing.center_x // PATCH_SIZE
        owner[patch], is_center[patch] = 1 + place, 1
    return owner, is_center


def object_masks(scene: Scene) -> NDArray[np.bool_]:
    """Tell which pixels each object covers by at least half.

    Returns:
        (number of objects, IMAGE_SIZE, IMAGE_SIZE) bool, in the order of `scene.objects`.
    """
    masks = np.zeros((len(scene.objects), IMAGE_SIZE, IMAGE_SIZE), dtype=np.bool_)
    for mask, item in zip(masks, scene.objects, strict=True):
        top, left, covered = coverage(item)
        side = covered.shape[0]
        mask[top : top + side, left : left + side] = covered >= 128
    return masks
