"""Images and videos from files.

**image / video** -> vision encoder -> ...: what a file holds is decoded completely here, so that a damaged one is found
before a model is loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from divprune.errors import MediaError, first_line

if TYPE_CHECKING:
    import av

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Medium:
    """One image or one video.

    Attributes:
        name: what the user calls it: the path as given, or the name of a bundled scene.
        kind: "image" or "video".
        frames: RGB images; one for an image, the sampled frames of a video.
        frame_indices: which frame of the video each sampled one is.
        frames_per_second: of the video, None if unknown or for an image.
        num_frames: how many frames the video has.
    """

    name: str
    kind: Kind
    frames: tuple[Image.Image, ...]
    frame_indices: tuple[int, ...] = (0,)
    frames_per_second: float | None = None
    num_frames: int = 1


def load_image(path: Path) -> Medium:
    """Decode an image completely, upright and as RGB.

    Raises:
        MediaError: the file is missing, no image, damaged or too large.
    """
    _require_file(path, "picture")
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise MediaError(f"{path} is not an image that Pillow can read (a video goes with `videos`)") from None
    except Image.DecompressionBombError:
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise MediaError(f"{path} has more than {limit}; scale it down first") from None
    except PermissionError:
        raise MediaError(f"no permission to read {path}") from None
    except MemoryError:
        raise
    # Pillow's decoders raise much more than OSError on damaged files (SyntaxError, ValueError, struct.error, ...).
    except Exception as error:
        raise MediaError(f"{path} is truncated or damaged: {first_line(error)}") from None
    return Medium(str(path), "image", (_as_rgb(upright),))


def load_video(path: Path, num_frames: int) -> Medium:
    """Decode `num_frames` frames, _spread evenly over a video (all of them, if it has fewer).

    Raises:
        MediaError: the file is missing, no video or damaged, or PyAV is not installed.
    """
    _require_file(path, "video")
    with _decoding_errors(path):
        total = _count_packets(path)
        indices = _spread(total, num_frames)
        frames, decoded = _decode(path, indices)
        if decoded and len(frames) < len(indices):
            # The container promised more frames than there are.
            total, indices = decoded, _spread(decoded, num_frames)
            frames, _ = _decode(path, indices)
        rate = _frame_rate(path)
    if not frames:
        raise MediaError(f"{path} holds no frame that can be decoded")
    return Medium(str(path), "video", tuple(frames), tuple(indices), rate, total)


def _spread(total: int, count: int) -> list[int]:
    """Return the middles of `count` equal parts of `range(total)`, at most `total` of them."""
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def _require_file(path: Path, what: str) -> None:
    if not path.exists():
        raise MediaError(f"no such {what}: {path}")
    if not path.is_file():
        raise MediaError(f"{path} is not a file; give one {what} at a time")


def _as_rgb(image: Image.Image) -> Image.Image:
    """Transparent parts become white; 16 bit greys keep their upper 8 bits."""
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


@contextmanager
def _decoding_errors(path: Path) -> Iterator[None]:
    try:
        import av.error
    except ImportError:
        raise MediaError('videos need PyAV: pip install "divprune[video]"') from None
    try:
        yield
    # Decoder errors derive from OSError or ValueError, according to the cause.
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"{path} is not a video that can be decoded: {first_line(error)}") from None


@contextmanager
def _video_stream(path: Path) -> Iterator[tuple["av.container.InputContainer", "av.video.stream.VideoStream"]]:
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _count_packets(path: Path) -> int:
    """Packets are counted without decoding; containers may lack a frame count, or lie."""
    with _video_stream(path) as (container, stream):
        return max(1, sum(packet.size > 0 for packet in container.demux(stream)))


def _decode(path: Path, indices: list[int]) -> tuple[list[Image.Image], int]:
    """Return the frames at ascending `indices`, and how many frames were decoded until the last of them."""
    wanted, frames, decoded = set(indices), [], 0
    with _video_stream(path) as (container, stream):
        for frame in container.decode(stream):
            if decoded in wanted:
                frames.append(_picture(frame))
            decoded += 1
            if decoded > indices[-1]:
                break
    return frames, decoded


def _picture(frame: "av.VideoFrame") -> Image.Image:
    image: Image.Image = frame.to_image().convert("RGB")
    # Telephones store upright videos lying down; both libraries count degrees counterclockwise.
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _frame_rate(path: Path) -> float | None:
    with _video_stream(path) as (_, stream):
        rate = stream.average_rate or stream.guessed_rate
        return float(rate) if rate else None
