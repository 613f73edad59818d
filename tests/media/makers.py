"""Videos whose frames say which they are, at times that a test chooses."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

CONSTANT = [Fraction(index, 25) for index in range(50)]
# 40 of 50 frames in the first 0.4 s of 18.4.
CHANGING = [Fraction(index, 100) for index in range(40)] + [Fraction(22 + 18 * index, 10) for index in range(10)]

# How a file is written: encoder, pixel format, ticks a second of the encoder.
FILES = {
    "mp4": ("mpeg4", "yuv420p", 16000),
    "mkv": ("mpeg4", "yuv420p", 1000),
    "webm": ("libvpx", "yuv420p", 1000),
    "avi": ("mpeg4", "yuv420p", 1000),
    "gif": ("gif", "rgb8", 100),
    # At a constant rate only.
    "mpg": ("mpeg2video", "yuv420p", 25),
    "ts": ("mpeg2video", "yuv420p", 25),
    "m2v": ("mpeg2video", "yuv420p", 25),
}
_NUM_BITS, _BAND = 13, 8  # pixels


def write_video(
    path: Path, times: Sequence[Fraction], *, turned: int = 0, options: dict[str, str] | None = None
) -> Path:
    """Write frames that say their index, shown at `times` in seconds.

    Args:
        path: the suffix says the format.
        times: ascending.
        turned: degrees counterclockwise that a player has to turn what is stored.
        options: of the container.
    """
    if path.suffix == ".webp":
        return _write_webp(path, times)
    encoder, pixel_format, ticks = FILES[path.suffix[1:]]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(encoder, rate=ticks if encoder == "mpeg4" else 25)
        stored = image_of(0).rotate(-turned, expand=True)
        stream.width, stream.height, stream.pix_fmt = *stored.size, pixel_format
        stream.codec_context.time_base = stream.time_base = Fraction(1, ticks)
        if turned:
            stream.set_display_rotation(turned)
        for index, time in enumerate(times):
            image = image_of(index).rotate(-turned, expand=True)
            frame = av.VideoFrame.from_image(image).reformat(format=pixel_format)
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _write_webp(path: Path, times: Sequence[Fraction]) -> Path:
    ends = [*times[1:], times[-1] + Fraction(1, 25)]
    milliseconds = [round(1000 * (end - begin)) for begin, end in zip(times, ends, strict=True)]
    first, *others = [image_of(index) for index in range(len(times))]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, lossless=True)
    return path


def image_of(index: int) -> Image.Image:
    """Return a frame: a band a bit of its index, white or black, above a white one that tells up from down."""
    bits = [255 * (index >> place & 1) for place in range(_NUM_BITS)]
    pixels = np.repeat(np.array([bits] * 24 + [[0] * _NUM_BITS] * 4 + [[255] * _NUM_BITS] * 4, np.uint8), _BAND, axis=1)
    return Image.fromarray(pixels).convert("RGB")


def index_of(frame: Image.Image) -> int:
    """Return which frame an upright image is."""
    pixels = np.asarray(frame.convert("L"))
    assert pixels.shape == (32, _NUM_BITS * _BAND)
    assert pixels[30].min() > 128
    return sum(1 << place for place in range(_NUM_BITS) if pixels[12, place * _BAND + _BAND // 2] > 128)
