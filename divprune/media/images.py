"""Images from files and URLs."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from divprune.errors import MediaError, first_line
from divprune.media.medium import Medium
from divprune.media.pixels import upright_rgb
from divprune.media.sources import advice_on, open_image, shown_name

# The formats that are tested; whatever else Pillow could open stays closed.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_WITHOUT_MARK = ("TGA",)
"""Formats whose files begin with nothing that tells them from others."""


def load_image(source: Path | str, *, page: int | None = None, allow_download: bool = False) -> Medium:
    """Decode an image completely, upright, as RGB, and no larger than models read.

    Args:
        source: a path, or a `data:` or `http(s):` URL.
        page: which page or frame of a file that has several, from 1; None for the first, with a note.
        allow_download: whether http(s) URLs are fetched.

    Raises:
        MediaError: the image is missing, none, damaged or too large, has no such page, or may not be downloaded.
    """
    name = shown_name(source)
    with open_image(source, allow_download) as file:
        return _decoded_image(file, name, page)


def decode_image(content: bytes, name: str) -> Medium:
    """Decode the content of an image's file, the first page of several.

    Args:
        content: of the file.
        name: what to call the image in messages.

    Raises:
        MediaError: the content is no image, or a damaged or too large one.
    """
    return _decoded_image(io.BytesIO(content), name, None)


def still_image_format(content: bytes) -> str | None:
    """Return the format, such as "PNG", of a file's content that is an image and does not move; None for all other."""
    try:
        with _opened(io.BytesIO(content), tuple(name for name in _enabled() if name not in _WITHOUT_MARK)) as image:
            return image.format if getattr(image, "n_frames", 1) == 1 else None
    # Whatever Pillow raises, it does not know what this is.
    except Exception:
        return None


def _decoded_image(file: BinaryIO, name: str, page: int | None) -> Medium:
    try:
        # A file and not its name: Pillow would map it into memory, and mixes up rows of turned TIFFs then.
        with _opened(file) as image:
            num_pages = getattr(image, "n_frames", 1)
            if page is not None and not 1 <= page <= num_pages:
                raise MediaError(f"`page` must be from 1 to {num_pages} for {name}, got {page}")
            if page is not None and num_pages > 1:
                image.seek(page - 1)
            rgb = upright_rgb(image, name)
    except MediaError:
        raise
    except UnidentifiedImageError:
        raise MediaError(f"{name} is not an image that Pillow can read ({advice_on(file, name)})") from None
    except Image.DecompressionBombError:
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise MediaError(f"{name} has more than {limit}; scale it down first") from None
    except MemoryError:
        raise
    # Pillow's decoders raise much more than OSError on damaged files (SyntaxError, ValueError, struct.error, ...).
    except Exception as error:
        raise MediaError(f"{name} is truncated or damaged: {first_line(error)}") from None
    note = f"{name} holds {num_pages} pages or frames; the first is used, another by `page`"
    return Medium(name, "image", (rgb,), note=note if page is None and num_pages > 1 else "")


def _opened(file: BinaryIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    with warnings.catch_warnings():
        # Sizes are looked at before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=_enabled() if formats is None else formats)


def image_suffixes() -> set[str]:
    """Return how names of images end that can be opened: ".jpg", ".png" and others."""
    enabled = _enabled()
    return {suffix for suffix, name in Image.registered_extensions().items() if name in enabled}


def _enabled() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
