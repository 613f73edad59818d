"""Generated scenes: coloured shapes on textured backgrounds, described completely by a seed.

First station of the map image -> tokens -> selection -> prompt -> LLM: where the embedded model's images come from.
The split of a scene follows from a checksum of its objects, so a test scene can never equal a training scene.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image

Split = Literal["train", "validation", "test"]

IMAGE_SIZE = 128  # pixels, height and width
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 36, 36),
    "orange": (250, 140, 20),
    "yellow": (246, 228, 40),
    "green": (30, 168, 52),
    "cyan": (40, 214, 224),
    "blue": (36, 70, 226),
    "purple": (158, 46, 196),
    "white": (246, 246, 246),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
PATTERNS: tuple[str, ...] = ("noise", "stripes", "checker", "gradient", "grain")
REGIONS: tuple[str, ...] = (
    "top left",
    "top center",
    "top right",
    "middle left",
    "center",
    "middle right",
    "bottom left",
    "bottom center",
    "bottom right",
)
MAX_OBJECTS = 6
RADIUS_RANGES: dict[str, tuple[int, int]] = {"small": (9, 11), "large": (13, 16)}  # pixels, both ends included

_SPLIT_CODES: dict[str, int] = {"train": 1, "validation": 2, "test": 3}
_REGION_EDGE_MARGIN = 3  # pixels between an object's centre and a region border, so that "where" has one answer
_GAP = 2  # pixels between the circumscribed circles of two objects
PLACEMENT_TRIES = 40


@dataclass(frozen=True)
class SceneObject:
    """One shape in a scene; lengths in pixels, rotation in degrees."""

    color: str
    shape: str
    size: str
    center_x: int
    center_y: int
    radius: int
    rotation: int
    rgb: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Colour and shape, as in "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def region(self) -> str:
        """The cell of the 3 x 3 grid over the image that holds the centre, as in "top left"."""
        return REGIONS[3 * (3 * self.center_y // IMAGE_SIZE) + 3 * self.center_x // IMAGE_SIZE]


@dataclass(frozen=True)
class Background:
    """A texture between two muted colours; `texture_seed` draws what the pattern leaves open."""

    pattern: str
    first_rgb: tuple[int, int, int]
    second_rgb: tuple[int, int, int]
    texture_seed: int


@dataclass(frozen=True)
class Scene:
    """An image's complete description."""

    seed: int
    split: Split
    objects: tuple[SceneObject, ...]
    background: Background

    @cached_property
    def image(self) -> Image.Image:
        """The image, RGB, IMAGE_SIZE x IMAGE_SIZE."""
        from divprune.embedded.drawing import render

        return Image.fromarray(render(self))


def scene(seed: int, split: Split = "test") -> Scene:
    """Draw the scene of a seed; the same on every machine.

    Args:
        seed: any non-negative integer; each split counts its own seeds.
        split: "train", "validation" or "test".

    Returns:
        The scene, whose objects' checksum belongs to `split`.

    Raises:
        ValueError: if `seed` is negative or `split` unknown.
    """
    generator = generator_of(seed, split)
    while True:
        objects = _objects(generator)
        if split_of(objects) == split:
            return Scene(seed, split, objects, random_background(generator))


def generator_of(seed: int, split: Split, *streams: int) -> np.random.Generator:
    """Return the generator of a seed of a split; `streams` make others of it.

    Raises:
        ValueError: if `seed` is negative or `split` unknown.
    """
    if split not in _SPLIT_CODES:
        raise ValueError(f"split must be one of {', '.join(_SPLIT_CODES)}, got {split!r}")
    if seed < 0:
        raise ValueError(f"seed must be non-negative, got {seed}")
    return np.random.default_rng([_SPLIT_CODES[split], seed, *streams])


def split_of(objects: tuple[object, ...]) -> Split:
    """Return the only split that may hold these objects: one eighth test, one eighth validation, the rest training."""
    bucket = zlib.crc32(repr(sorted(map(repr, objects))).encode()) % 8
    if bucket == 0:
        return "test"
    return "validation" if bucket == 1 else "train"


def random_integer(generator: np.random.Generator, low: int, high: int) -> int:
    """Return a uniform integer, both ends included."""
    return int(generator.integers(low, high + 1))


def _objects(generator: np.random.Generator) -> tuple[SceneObject, ...]:
    """One to six objects that do not touch; starts over when they do not fit."""
    num_objects = random_integer(generator, 1, MAX_OBJECTS)
    while True:
        placed: list[SceneObject] = []
        for _ in range(num_objects):
            color, shape = _color_and_shape(generator, placed)
            candidate = _place(generator, color, shape, placed)
            if candidate is None:
                break
            placed.append(candidate)
        if len(placed) == num_objects:
            return tuple(placed)


def _color_and_shape(generator: np.random.Generator, placed: list[SceneObject]) -> tuple[str, str]:
    """Repeat an earlier object's colour or shape now and then: counting and adversarial questions live on it."""
    color = tuple(COLORS)[random_integer(generator, 0, len(COLORS) - 1)]
    shape = SHAPES[random_integer(generator, 0, len(SHAPES) - 1)]
    if placed and generator.random() < 0.3:
        color = placed[random_integer(generator, 0, len(placed) - 1)].color
    if placed and generator.random() < 0.3:
        shape = placed[random_integer(generator, 0, len(placed) - 1)].shape
    return color, shape


def _place(generator: np.random.Generator, color: str, shape: str, placed: list[SceneObject]) -> SceneObject | None:
    """Find a free place, or None after some tries."""
    size = "small" if generator.random() < 0.5 else "large"
    radius = random_integer(generator, *RADIUS_RANGES[size])
    rotation = random_integer(generator, -12, 12)
    rgb = random_shade(generator, color)
    for _ in range(PLACEMENT_TRIES):
        center_x, center_y = (random_integer(generator, radius + 1, IMAGE_SIZE - radius - 2) for _ in range(2))
        if _near_region_border(center_x) or _near_region_border(center_y):
            continue
        if all(apart(other, center_x, center_y, radius) for other in placed):
            return SceneObject(color, shape, size, center_x, center_y, radius, rotation, rgb)
    return None


def random_shade(generator: np.random.Generator, color: str) -> tuple[int, int, int]:
    """Return a colour's red, green and blue, each up to 9 of 255 off."""
    red, green, blue = (min(255, max(0, channel + random_integer(generator, -9, 9))) for channel in COLORS[color])
    return red, green, blue


def _near_region_border(coordinate: int) -> bool:
    return any(abs(3 * coordinate - border * IMAGE_SIZE) < 3 * _REGION_EDGE_MARGIN for border in (1, 2))


def apart(other: SceneObject, center_x: int, center_y: int, radius: int) -> bool:
    """Tell whether an object leaves a gap to a disc."""
    reach = other.radius + radius + _GAP
    return (other.center_x - center_x) ** 2 + (other.center_y - center_y) ** 2 >= reach * reach


def random_background(generator: np.random.Generator) -> Background:
    """Return a texture between two muted colours."""
    pattern = PATTERNS[random_integer(generator, 0, len(PATTERNS) - 1)]
    brightness = random_integer(generator, 60, 150)
    first = [brightness + random_integer(generator, -22, 22) for _ in range(3)]
    second = [channel + random_integer(generator, -28, 28) for channel in first]
    return Background(
        pattern,
        (first[0], first[1], first[2]),
        (second[0], second[1], second[2]),
        int(generator.integers(0, 2**31)),
    )
