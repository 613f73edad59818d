"""Read the frames of video files: PyAV for containers, Pillow for animated WebP.

A file is read twice: `probe` finds out when its frames are shown, `decode` returns them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from divprune.errors import MediaError, first_line
from divprune.media.pixels import as_rgb, fitting
from divprune.media.timeline import Timeline

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MakeImage = Callable[[int], Image.Image]
"""Return a frame as an image of at most so many pixels."""

Decoded = Iterator[tuple[int | None, MakeImage]]
"""Each frame's timestamp in ticks, None if it has none, and its image."""


class Reader(NamedTuple):
    """How a kind of file is read.

    Attributes:
        probe: return the timeline, and how many seconds the file promises: 0 if it has them all, infinite if it is
            cut and does not say where it would have ended.
        decode: return all frames in the order in which they are shown.
    """

    probe: Callable[[Path], tuple[Timeline, float]]
    decode: Callable[[Path], Decoded]


_MAX_FRAME_PIXELS = 2**25  # 8K
_MAX_THREADED_PIXELS = 2**23  # every thread holds a frame
_MILLISECOND = Fraction(1, 1000)
_UNSAID_MILLISECONDS = 100  # what browsers make of 0
_MICROSECONDS = 1_000_000


@contextmanager
def _video_stream(path: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """Open the first video stream that is not a cover image; decoders' errors become `ValueError`."""
    import av
    import av.error
    from av.stream import Disposition

    try:
        with av.open(str(path)) as container:
            streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
            if not streams:
                raise ValueError("it has no video stream")
            stream = streams[0]
            if getattr(stream, "codec_context", None) is None:
                raise ValueError("there is no decoder for it")
            num_pixels = stream.width * stream.height
            if num_pixels > _MAX_FRAME_PIXELS:
                raise ValueError(f"its frames have more than {_MAX_FRAME_PIXELS:,} pixels; scale it down first")
            stream.thread_type = "AUTO" if num_pixels <= _MAX_THREADED_PIXELS else "SLICE"
            yield container, stream
    except av.error.FFmpegError as error:
        raise ValueError(first_line(error)) from None


def _probe_container(path: Path) -> tuple[Timeline, float]:
    """Read all packets without decoding them: containers may lack a frame count and a rate, or lie."""
    try:
        from av.error import FFmpegError
    except ImportError:
        raise MediaError('videos need PyAV: pip install "divprune[video]"') from None
    shown: list[tuple[int | None, int]] = []
    with _video_stream(path) as (container, stream):
        reached = 0.0
        # What comes before the damage is used.
        with suppress(FFmpegError):
            for packet in container.demux():
                if packet.size and not packet.is_discard:
                    duration = packet.duration or 0
                    if packet.stream.index == stream.index:
                        shown.append((packet.pts, duration))
                    begin = packet.pts if packet.pts is not None else packet.dts or 0
                    reached = max(reached, float((begin + duration) * (packet.time_base or 0)))
        named_rate = stream.average_rate or stream.guessed_rate
        known = [(timestamp, duration) for timestamp, duration in shown if timestamp is not None]
        if known and len(known) == len(shown):
            timestamps = [timestamp for timestamp, _ in known]
            timeline = Timeline.of(timestamps, stream.time_base or _MILLISECOND, max(known)[1], named_rate)
        else:
            timeline = Timeline(max(1, len(shown)), rate=named_rate)
        promised = (container.duration or 0) / _MICROSECONDS
        begin_seconds = (container.start_time or 0) / _MICROSECONDS
        is_gif = container.format.name == "gif"
    if is_gif and not _ends_as_gif(path):
        return timeline, inf
    return timeline, promised if promised > reached - begin_seconds + float(_longest_gap(timeline)) else 0.0


def _longest_gap(timeline: Timeline) -> Fraction:
    return max((second - first for first, second in pairwise(timeline.timestamps)), default=0) * timeline.tick


def _ends_as_gif(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b";"


def _decode_container(path: Path) -> Decoded:
    from av.error import FFmpegError

    with _video_stream(path) as (container, stream):
        has_begun = False
        try:
            for frame in container.decode(stream):
                if not frame.is_corrupt:
                    has_begun = True
                    yield frame.pts, partial(_frame_image, frame)
        except FFmpegError:
            if not has_begun:
                raise


def _frame_image(frame: "VideoFrame", max_pixels: int) -> Image.Image:
    width, height = fitting((frame.width, frame.height), max_pixels)
    image: Image.Image = frame.to_image(width=width, height=height).convert("RGB")
    # Telephones store upright videos lying down; both libraries count degrees counterclockwise.
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _webp_frames(path: Path) -> Iterator[tuple[int, int, Image.Image]]:
    """Return begin and duration of each frame in milliseconds, and its image."""
    begin = 0
    with Image.open(path, formats=("WEBP",)) as image:
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            image.load()
            duration = image.info.get("duration") or _UNSAID_MILLISECONDS
            yield begin, duration, image
            begin += duration


def _probe_webp(path: Path) -> tuple[Timeline, float]:
    shown = [(begin, duration) for begin, duration, _ in _webp_frames(path)]
    return Timeline.of([begin for begin, _ in shown], _MILLISECOND, shown[-1][1]), 0.0


def _decode_webp(path: Path) -> Decoded:
    for begin, _, image in _webp_frames(path):
        yield begin, partial(_webp_image, image)


def _webp_image(image: Image.Image, max_pixels: int) -> Image.Image:
    rgb = as_rgb(image)
    size = fitting(rgb.size, max_pixels)
    return rgb if size == rgb.size else rgb.resize(size, reducing_gap=2.0)


CONTAINER = Reader(_probe_container, _decode_container)
ANIMATED_WEBP = Reader(_probe_webp, _decode_webp)
