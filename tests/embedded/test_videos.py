"""Videos: the same seed gives the same frames, splits never share one, objects come, move and go as described."""

import hashlib

import numpy as np
import pytest

from divprune.embedded import Video, generated_video
from divprune.embedded.scenes import COLORS, IMAGE_SIZE, SHAPES, Split, split_of
from divprune.embedded.videos import DIRECTIONS, NUM_VIDEO_FRAMES

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
VIDEOS = [generated_video(seed) for seed in range(150)]


def digest(video: Video) -> str:
    return hashlib.sha256(b"".join(np.asarray(frame).tobytes() for frame in video.frames)).hexdigest()


def test_description_of_a_seed_is_pinned() -> None:
    """The committed weights and accuracies speak of these very videos."""
    first = generated_video(0, "test")
    assert first == generated_video(0, "test")
    told = [(item.name, item.first_frame, item.last_frame, item.direction) for item in first.objects]
    assert told == [
        ("cyan circle", 4, 7, "right"),
        ("white circle", 3, 6, "right"),
        ("green triangle", 1, 3, None),
    ]
    assert len(first.frames) == NUM_VIDEO_FRAMES
    assert all(frame.size == (IMAGE_SIZE, IMAGE_SIZE) and frame.mode == "RGB" for frame in first.frames)
    assert digest(first)[:16] == "ebc92acf954cde83"


def test_splits_are_disjoint() -> None:
    videos = {split: [generated_video(seed, split) for seed in range(60)] for split in SPLITS}
    for split, drawn in videos.items():
        assert all(split_of(video.objects) == split for video in drawn)
    assert len({video.objects for drawn in videos.values() for video in drawn}) == 180


def test_colours_tell_the_objects_of_a_video_apart() -> None:
    assert all(len({item.color for item in video.objects}) == len(video.objects) for video in VIDEOS)


def test_videos_cover_the_whole_range() -> None:
    objects = [item for video in VIDEOS for item in video.objects]
    assert {len(video.objects) for video in VIDEOS} == {3, 4, 5}
    assert {item.color for item in objects} == set(COLORS)
    assert {item.shape for item in objects} == set(SHAPES)
    assert {item.direction for item in objects} == {None, *DIRECTIONS}
    assert {item.first_frame for item in objects} == {0, 1, 2, 3, 4, 5}
    assert {item.last_frame - item.first_frame for item in objects} == {1, 2, 3}
    for video in VIDEOS:
        arrivals = [item.first_frame for item in video.objects]
        assert len(arrivals) == len(set(arrivals))


def test_objects_are_inside_and_apart_in_every_frame() -> None:
    for video in VIDEOS:
        for frame in video.scenes:
            for place, item in enumerate(frame.objects):
                assert item.radius < min(item.center_x, item.center_y)
                assert max(item.center_x, item.center_y) < IMAGE_SIZE - item.radius - 1
                for other in frame.objects[:place]:
                    distance = np.hypot(item.center_x - other.center_x, item.center_y - other.center_y)
                    assert distance > item.radius + other.radius


def test_frames_differ_where_objects_move_or_come_and_nowhere_else() -> None:
    for video in VIDEOS[:30]:
        pixels = [np.asarray(frame).astype(int) for frame in video.frames]
        for number in range(1, NUM_VIDEO_FRAMES):
            differs = np.abs(pixels[number] - pixels[number - 1]).sum(axis=-1) > 0
            changed = [item for item in video.objects if item.at(number) != item.at(number - 1)]
            assert differs.any() == bool(changed)
            may_differ = np.zeros_like(differs)
            for item in changed:
                for thing in (item.at(number), item.at(number - 1)):
                    if thing is not None:
                        rows = slice(thing.center_y - thing.radius, thing.center_y + thing.radius + 1)
                        columns = slice(thing.center_x - thing.radius, thing.center_x + thing.radius + 1)
                        may_differ[rows, columns] = True
            assert not (differs & ~may_differ).any()


@pytest.mark.parametrize(("seed", "split", "message"), [(-1, "test", "seed must be"), (0, "tset", "split must be")])
def test_bad_arguments_are_refused(seed: int, split: Split, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generated_video(seed, split)
