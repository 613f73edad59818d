"""Pixels of every mode as upright RGB of a size that models read."""

import math
from typing import Any

from PIL import Image, ImageOps

from divprune.errors import MediaError

MAX_PIXELS = 2**24
"""An image is scaled down to this; no supported model reads more of one."""

MAX_PIXELS_AT_ONCE = 2**27
"""Of all frames of a video, or of the images of several questions, that are in memory together."""

_MAX_DECODED_PIXELS = 2**26
_COSTLY_FORMATS = ("AVIF", "JPEG2000")  # their decoders hold as much again
_USED_LEVELS = 16
"""Channels of 16 bits with fewer upper levels than this use 12 bits or fewer."""

# TIFF's names of what Pillow leaves to its caller.
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decode an opened image: no more of it than models read, upright, as RGB.

    Raises:
        MediaError: decoding it would take too much memory, or Pillow would not read it right.
    """
    num_pixels, size = image.width * image.height, fitting(image.size, MAX_PIXELS)
    is_deep = ";16" in str(getattr(image, "tile", ""))
    tags = _tags(image)
    bits = tags.get(_BITS, ())
    if (16 in bits and tags.get(_PLANES) == 2) or (8 in bits and 2 in tags.get(_SAMPLE_FORMAT, ())):
        raise MediaError(f"{name} has planes of 16 bits or signed bytes, which are not supported; save it as PNG")
    if size != image.size:
        # JPEG is decoded at a half, a quarter or an eighth; but a progressive one wants memory for all of it.
        image.draft(None, size)
    most = _MAX_DECODED_PIXELS // (2 if image.format in _COSTLY_FORMATS else 1)
    if (num_pixels if image.info.get("progressive") else image.width * image.height) > most:
        raise MediaError(f"{name} has more than {most:,} pixels; scale it down first")
    image.load()
    if is_deep and image.mode in ("RGB", "RGBA") and _largest(image.convert("RGB")) < _USED_LEVELS:
        raise MediaError(f"{name} uses 12 bits or fewer of its 16 a channel; save it with 8 bits a channel")
    ImageOps.exif_transpose(image, in_place=True)
    return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB, of at most `MAX_PIXELS`.

    Transparent parts become white. Greys of more than 8 bits are scaled by the range of the image: whole numbers by the
    fewest bits (from 8 on) that hold the largest, fractions within 0 to 1 by that, others by their least and largest.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scaled(image)
    elif image.mode == "LAB":
        from PIL import ImageCms

        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")  # type: ignore[assignment]
    elif image.has_transparency_data and image.mode != "RGBA":
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    elif image.mode in ("1", "P"):
        image = image.convert("RGB")
    size = fitting(image.size, MAX_PIXELS)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fitting(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return a size of at most so many pixels, of the same shape; the same size if it is no larger."""
    width, height = size
    factor = math.sqrt(max_pixels / (width * height))
    return size if factor >= 1 else (max(1, int(width * factor)), max(1, int(height * factor)))


def _tags(image: Image.Image) -> Any:
    """Return a TIFF's tags, nothing of other images."""
    return getattr(image, "tag_v2", {})


def _largest(image: Image.Image) -> int:
    extrema: Any = image.getextrema()
    return max(int(high) for _, high in extrema)


def _scaled(image: Image.Image) -> Image.Image:
    """Scale greys of 16 or 32 bits, or floating-point ones, to 8 bits."""
    import numpy

    values, tags = numpy.asarray(image), _tags(image)
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(numpy.uint32)
    if image.mode == "F":
        values = numpy.nan_to_num(values, copy=True, posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and image.mode == "F":
        low, high = 0.0, 1.0
    elif low >= 0 and (image.mode != "F" or bool((values % 1 == 0).all())):
        low, high = 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    # In place: a large image takes four bytes a pixel, and not sixteen.
    scaled = values.astype(numpy.float32)
    scaled -= low
    scaled *= 255 / ((high - low) or 1)
    grey = scaled.round(out=scaled).clip(0, 255, out=scaled).astype(numpy.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)
