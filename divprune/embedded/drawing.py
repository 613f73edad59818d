"""From a scene's description to pixels (integer arithmetic, so machines agree)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from divprune.embedded.scenes import IMAGE_SIZE, Background, Scene, SceneObject

_OVERSAMPLING = 4  # shapes are drawn this much larger and averaged down: smooth edges

# Corners on the unit circle's disc, y downwards; circle and ring are drawn as ellipses.
_SQUARE = ((-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78))
_TRIANGLE = ((0.0, -1.0), (0.94, 0.72), (-0.94, 0.72))
_CROSS = (
    (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
    (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
)  # fmt: skip
_STAR = tuple(
    (distance * math.sin(math.pi * corner / 5), -distance * math.cos(math.pi * corner / 5))
    for corner, distance in enumerate((1.0, 0.42) * 5)
)
_POLYGONS = {"square": _SQUARE, "triangle": _TRIANGLE, "cross": _CROSS, "star": _STAR}
_RING_HOLE = 0.52  # inner over outer radius


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        (IMAGE_SIZE, IMAGE_SIZE, 3) uint8, RGB.
    """
    pixels = _draw_background(scene.background)
    for item in scene.objects:
        top, left, covered = coverage(item)
        side = covered.shape[0]
        under = pixels[top : top + side, left : left + side]
        weight = covered.astype(np.int32)[:, :, None]
        under[:] = (under * (255 - weight) + np.array(item.rgb, dtype=np.int32) * weight + 127) // 255
    return pixels.astype(np.uint8)


def coverage(item: SceneObject) -> tuple[int, int, NDArray[np.uint8]]:
    """Return top, left and how much (0-255) of each pixel the object covers, on its bounding square."""
    side = 2 * item.radius + 1
    canvas = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    middle, reach = side * _OVERSAMPLING / 2, item.radius * _OVERSAMPLING
    if item.shape in _POLYGONS:
        draw.polygon(_corners(item, middle, reach), fill=255)
    else:
        draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=255)
    if item.shape == "ring":
        hole = round(reach * _RING_HOLE)
        draw.ellipse((middle - hole, middle - hole, middle + hole, middle + hole), fill=0)
    covered = np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.uint8)
    return item.center_y - item.radius, item.center_x - item.radius, covered


def _corners(item: SceneObject, middle: float, reach: int) -> list[tuple[int, int]]:
    """Return the polygon's corners on the oversampled canvas, rotated and rounded."""
    cosine, sine = math.cos(math.radians(item.rotation)), math.sin(math.radians(item.rotation))
    return [
        (round(middle + reach * (x * cosine - y * sine)), round(middle + reach * (x * sine + y * cosine)))
        for x, y in _POLYGONS[item.shape]
    ]


def _draw_background(background: Background) -> NDArray[np.int32]:
    """(IMAGE_SIZE, IMAGE_SIZE, 3) int32 in 0..255: a blend of two colours by the pattern, plus fine grain."""
    generator = np.random.default_rng(background.texture_seed)
    blend = np.asarray(_PATTERN_FUNCTIONS[background.pattern](generator), dtype=np.int32)[:, :, None]
    first, second = np.array(background.first_rgb, np.int32), np.array(background.second_rgb, np.int32)
    grain = 14 if background.pattern == "grain" else 4
    noise = generator.integers(-grain, grain + 1, (IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.int8).astype(np.int32)
    pixels: NDArray[np.int32] = np.clip((first * (255 - blend) + second * blend) // 255 + noise, 0, 255)
    return pixels


def _smooth_noise(generator: np.random.Generator) -> NDArray[np.uint8]:
    cells = int(generator.integers(3, 13))
    coarse = generator.integers(0, 256, (cells, cells), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def _ramp(generator: np.random.Generator) -> NDArray[np.int64]:
    """Return an integer slope over the image in a random direction."""
    step_x, step_y = (int(step) for step in generator.integers(-4, 5, 2))
    if step_x == step_y == 0:
        step_x = 3
    rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE))
    return step_x * columns + step_y * rows


def _stripes(generator: np.random.Generator) -> NDArray[np.int64]:
    ramp = _ramp(generator)
    period = int(generator.integers(20, 90))
    return ((ramp + int(generator.integers(0, period))) % period * 2 // period) * 255


def _checker(generator: np.random.Generator) -> NDArray[np.int64]:
    side, offset = int(generator.integers(5, 25)), int(generator.integers(0, 25))
    rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE)) + offset
    return (rows // side + columns // side) % 2 * 255


def _gradient(generator: np.random.Generator) -> NDArray[np.int64]:
    ramp = _ramp(generator)
    ramp = ramp - ramp.min()
    scaled: NDArray[np.int64] = ramp * 255 // ramp.max()
    return scaled


def _grain(generator: np.random.Generator) -> NDArray[np.uint8]:
    return generator.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)


_PATTERN_FUNCTIONS: dict[str, Callable[[np.random.Generator], NDArray[Any]]] = {
    "noise": _smooth_noise,
    "stripes": _stripes,
    "checker": _checker,
    "gradient": _gradient,
    "grain": _grain,
}
