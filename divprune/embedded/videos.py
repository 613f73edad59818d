"""Generated videos: coloured shapes that come, stand or move, and go on a static background, described by a seed.

They are to the embedded video model what `scenes` are to the embedded model, and are drawn like them, frame by frame.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from divprune.embedded.scenes import (
    COLORS,
    IMAGE_SIZE,
    PLACEMENT_TRIES,
    RADIUS_RANGES,
    SHAPES,
    Background,
    Scene,
    SceneObject,
    Split,
    apart,
    generator_of,
    random_background,
    random_integer,
    random_shade,
    split_of,
)

NUM_VIDEO_FRAMES = 8
MAX_VIDEO_OBJECTS = 5
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Where objects move, as signs of x and y; y points downwards."""

_NUM_OBJECTS = (3, MAX_VIDEO_OBJECTS)  # this and the following with both ends included
_STILL_FRAMES = (2, 3)  # how long an object that does not move is there
_MOVING_FRAMES = 4
_STEPS = (8, 10)  # pixels a frame of a moving object
_LAST = NUM_VIDEO_FRAMES - 1
_LAST_ARRIVAL = 5
_VIDEO_STREAM = 1


@dataclass(frozen=True)
class VideoObject:
    """One shape of a video.

    Attributes:
        thing: the shape as it stands in `first_frame`.
        first_frame: the first frame that shows it.
        last_frame: the last one.
        step_x: how far it moves from frame to frame, in pixels.
        step_y: likewise, downwards.
    """

    thing: SceneObject
    first_frame: int
    last_frame: int
    step_x: int = 0
    step_y: int = 0

    @property
    def color(self) -> str:
        """Its colour; no other object of the video has it."""
        return self.thing.color

    @property
    def shape(self) -> str:
        """Its shape."""
        return self.thing.shape

    @property
    def name(self) -> str:
        """Colour and shape, as in "red circle"."""
        return self.thing.name

    @property
    def direction(self) -> str | None:
        """Where it moves, as in DIRECTIONS; None if it stands."""
        signs = (int(np.sign(self.step_x)), int(np.sign(self.step_y)))
        return next((name for name, each in DIRECTIONS.items() if each == signs), None)

    def at(self, frame: int) -> SceneObject | None:
        """Return the shape as a frame shows it; None where it is not there."""
        if not self.first_frame <= frame <= self.last_frame:
            return None
        passed = frame - self.first_frame
        center_x, center_y = self.thing.center_x + passed * self.step_x, self.thing.center_y + passed * self.step_y
        return replace(self.thing, center_x=center_x, center_y=center_y)


@dataclass(frozen=True)
class Video:
    """A video's complete description."""

    seed: int
    split: Split
    objects: tuple[VideoObject, ...]
    background: Background

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """What each frame shows."""
        return tuple(
            Scene(self.seed, self.split, _shown(self.objects, frame), self.background)
            for frame in range(NUM_VIDEO_FRAMES)
        )

    @cached_property
    def frames(self) -> tuple[Image.Image, ...]:
        """The frames, RGB, IMAGE_SIZE x IMAGE_SIZE."""
        return tuple(each.image for each in self.scenes)


def generated_video(seed: int, split: Split = "test") -> Video:
    """Draw the video of a seed; the same on every machine.

    Args:
        seed: any non-negative integer; each split counts its own seeds.
        split: "train", "validation" or "test".

    Returns:
        The video, whose objects' checksum belongs to `split`. Its objects have different colours, each comes in a frame
        of its own, and no two of them touch in any frame.

    Raises:
        ValueError: if `seed` is negative or `split` unknown.
    """
    generator = generator_of(seed, split, _VIDEO_STREAM)
    while True:
        objects = _video_objects(generator)
        if objects is not None and split_of(objects) == split:
            return Video(seed, split, objects, random_background(generator))


def _shown(objects: tuple[VideoObject, ...], frame: int) -> tuple[SceneObject, ...]:
    return tuple(there for item in objects if (there := item.at(frame)) is not None)


def _video_objects(generator: np.random.Generator) -> tuple[VideoObject, ...] | None:
    """Objects that do not touch; None when they do not fit."""
    number = random_integer(generator, *_NUM_OBJECTS)
    colors = generator.permutation(len(COLORS))[:number]
    arrivals = generator.permutation(_LAST_ARRIVAL + 1)[:number]
    placed: list[VideoObject] = []
    for color, first_frame in zip(colors, arrivals, strict=True):
        candidate = _placed(generator, tuple(COLORS)[color], int(first_frame), placed)
        if candidate is None:
            return None
        placed.append(candidate)
    return tuple(placed)


def _placed(
    generator: np.random.Generator, color: str, first_frame: int, placed: list[VideoObject]
) -> VideoObject | None:
    """Find a free way for an object, or None after some tries."""
    shape = SHAPES[random_integer(generator, 0, len(SHAPES) - 1)]
    if placed and generator.random() < 0.4:
        # Counting lives on shapes that repeat.
        shape = placed[random_integer(generator, 0, len(placed) - 1)].shape
    size = "small" if generator.random() < 0.5 else "large"
    radius = random_integer(generator, *RADIUS_RANGES[size])
    rotation, rgb = random_integer(generator, -12, 12), random_shade(generator, color)
    moves = generator.random() < 0.5
    num_frames = _MOVING_FRAMES if moves else random_integer(generator, *_STILL_FRAMES)
    last_frame = min(first_frame + num_frames - 1, _LAST)
    for _ in range(PLACEMENT_TRIES):
        step_x, step_y = _step(generator) if moves else (0, 0)
        center_x, center_y = (random_integer(generator, radius + 1, IMAGE_SIZE - radius - 2) for _ in range(2))
        thing = SceneObject(color, shape, size, center_x, center_y, radius, rotation, rgb)
        candidate = VideoObject(thing, first_frame, last_frame, step_x, step_y)
        if _fits(candidate, placed):
            return candidate
    return None


def _step(generator: np.random.Generator) -> tuple[int, int]:
    sign_x, sign_y = tuple(DIRECTIONS.values())[random_integer(generator, 0, len(DIRECTIONS) - 1)]
    length = random_integer(generator, *_STEPS)
    return sign_x * length, sign_y * length


def _fits(candidate: VideoObject, placed: list[VideoObject]) -> bool:
    """Tell whether an object stays inside, and away from others in every frame that shows both."""
    for frame in range(candidate.first_frame, candidate.last_frame + 1):
        thing = candidate.at(frame)
        if thing is None or not _inside(thing):
            return False
        if not all(
            apart(other, thing.center_x, thing.center_y, thing.radius) for other in _shown(tuple(placed), frame)
        ):
            return False
    return True


def _inside(thing: SceneObject) -> bool:
    low, high = thing.radius + 1, IMAGE_SIZE - thing.radius - 2
    return low <= thing.center_x <= high and low <= thing.center_y <= high
