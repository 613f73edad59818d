"""Images and videos as they come: **image / video** -> vision encoder -> ...

What is named is decoded completely here, so that a damaged one is found before a model is loaded. Nothing else in the
package opens one.
"""

from divprune.media.images import decode_image, image_suffixes, load_image, still_image_format
from divprune.media.medium import Medium
from divprune.media.pixels import MAX_PIXELS_AT_ONCE, as_rgb
from divprune.media.sources import is_url, shown_name
from divprune.media.videos import load_video

__all__ = [
    "MAX_PIXELS_AT_ONCE",
    "Medium",
    "as_rgb",
    "decode_image",
    "image_suffixes",
    "is_url",
    "load_image",
    "load_video",
    "shown_name",
    "still_image_format",
]
