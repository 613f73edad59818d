"""Images from files and URLs."""

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


def _opened(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        # Sizes are looked at before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=_enabled())


def image_suffixes() -> set[str]:
    """Return how names of images end that can be opened: ".jpg", ".png" and others."""
    enabled = _enabled()
    return {suffix for suffix, name in Image.registered_extensions().items() if name in enabled}


def _enabled() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
