"""Videos from files: frames sampled evenly in time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path

from PIL import Image

from divprune.errors import MediaError, first_line
from divprune.media.medium import Medium
from divprune.media.pixels import MAX_PIXELS, MAX_PIXELS_AT_ONCE
from divprune.media.readers import ANIMATED_WEBP, CONTAINER, Decoded, Reader
from divprune.media.sources import open_file
from divprune.media.timeline import Timeline

_TOLERATED_SECONDS = 0.1
"""By so much a file may be shorter than it promises without a note."""


def load_video(path: Path, num_frames: int) -> Medium:
    """Decode frames of a video, spread evenly over its time.

    A video at a constant rate gives at most all its frames; at a changing rate a frame that is shown for long may come
    several times (see `Timeline.sample`).

    Raises:
        MediaError: the file is missing, no video or damaged, or PyAV is not installed.
    """
    reader = _reader_of(path)
    with _decoding_errors(path):
        timeline, promised = reader.probe(path)
        sample = timeline.sample(num_frames)
        frames = _taken(reader.decode(path), timeline, sample.indices)
        if len(frames) < len(set(sample.indices)):
            # Some frames that the container lists cannot be decoded.
            promised = max(promised, timeline.seconds or 0)
            timeline = _decodable(reader.decode(path), timeline)
            sample = timeline.sample(num_frames)
            frames = _taken(reader.decode(path), timeline, sample.indices)
    if not frames:
        raise MediaError(f"{path} holds no frame that can be decoded")
    return Medium(
        str(path),
        "video",
        tuple(frames[index] for index in sample.indices),
        sample.indices,
        float(timeline.rate) if timeline.rate else None,
        timeline.num_frames,
        sample.times,
        timeline.seconds,
        _cut_note(path, timeline, promised),
    )


def _taken(decoded: Decoded, timeline: Timeline, indices: Sequence[int]) -> dict[int, Image.Image]:
    """Return the images of the frames at some indices; fewer if the file does not have them all."""
    wanted = set(indices)
    places: dict[int | None, int] = {timestamp: place for place, timestamp in enumerate(timeline.timestamps)}
    max_pixels = min(MAX_PIXELS, MAX_PIXELS_AT_ONCE // max(1, len(indices)))
    frames: dict[int, Image.Image] = {}
    for number, (timestamp, image) in enumerate(decoded):
        index = number if not places else places.get(timestamp)
        if index in wanted and index not in frames:
            frames[index] = image(max_pixels)
            if len(frames) == len(wanted):
                break
    return frames


def _decodable(decoded: Decoded, listed: Timeline) -> Timeline:
    """Return the timeline of the frames that can be decoded, of a file that lists others."""
    timestamps = [timestamp for timestamp, _ in decoded]
    known = [timestamp for timestamp in timestamps if timestamp is not None]
    if not known or len(known) < len(timestamps):
        return Timeline(len(timestamps), rate=listed.rate)
    return Timeline.of(known, listed.tick, named_rate=listed.rate)


def _cut_note(path: Path, timeline: Timeline, promised: float) -> str:
    """Say how much of a file could be read, if it is noticeably less than it promises."""
    seconds = timeline.seconds
    if seconds is None or promised - seconds <= max(_TOLERATED_SECONDS, 2 * seconds / timeline.num_frames):
        return ""
    read = f"the first {seconds:.1f} s" + ("" if promised == inf else f" of {promised:.1f} s")
    return f"{path} is cut off or damaged: {read} could be read"


@contextmanager
def _decoding_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except (OSError, ValueError, LookupError, EOFError, SyntaxError) as error:
        raise MediaError(f"{path} is not a video that can be decoded: {first_line(error)}") from None


def _reader_of(path: Path) -> Reader:
    """Return who reads a file: Pillow animated WebP, which PyAV cannot, and PyAV all the rest."""
    with open_file(path, "video") as file:
        head = file.read(12)
    return ANIMATED_WEBP if head[:4] == b"RIFF" and head[8:] == b"WEBP" else CONTAINER
