"""How a server comes by the images and videos that requests name: vLLM's connector, read by `divprune.media`.

Images are read as `divprune batch` and `divprune run` read them, so that the same file gives the same answer. Whatever
fails on the way from an address to pixels is a fault of the request, and said to be one.
"""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MediaConnector, MediaIO, MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video_decoders.opencv import OpenCVVideoBackendMixin

from divprune.errors import MediaError, first_line
from divprune.media import decode_image, shown_name, still_image_format

_LIMITS = {ImageMediaIO: "VLLM_IMAGE_FETCH_TIMEOUT", VideoMediaIO: "VLLM_VIDEO_FETCH_TIMEOUT"}
"""Environment variables of the server that say how many seconds an address has to deliver."""


class ImagesAsInBatches(ImageMediaIO):
    """Images that `divprune.media` decodes."""

    def load_bytes(self, data: bytes) -> MediaWithBytes[Any]:
        """Decode an image."""
        return MediaWithBytes(decode_image(data, "it").frames[0], data)


class AnyLengthVideos(MediaIO[Any]):
    """Videos that vLLM decodes, and those of a single frame; still images are none."""

    def __init__(self, decoder: VideoMediaIO) -> None:
        super().__init__()
        self._decoder = decoder

    def load_bytes(self, data: bytes) -> MediaWithBytes[Any]:
        """Decode a video.

        Raises:
            MediaError: It is an image, or has no frame that can be decoded.
        """
        still = still_image_format(data)
        if still is not None:
            raise MediaError(f"it is an image ({still}) and was sent as a video; send it as image_url")
        found = _of_one_frame(data) or self._decoder.load_bytes(data)
        if not len(found.media[0]):
            raise MediaError("it holds no frame that can be decoded")
        return found

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes[Any]:
        """Decode a video, or the JPEG frames of one."""
        if media_type.lower() == "video/jpeg":
            return self._decoder.load_base64(media_type, data)
        return self.load_bytes(b64decode(data, validate=True))

    def load_file(self, filepath: Any) -> MediaWithBytes[Any]:
        """Decode a video's file."""
        return self.load_bytes(filepath.read_bytes())


def _of_one_frame(data: bytes) -> MediaWithBytes[Any] | None:
    """Decode a video of a single frame; None for any other.

    Behind the only frame vLLM's decoder finds no way back to it, and Qwen-VL's sampling takes frames by twos. Models
    that read two at a time repeat it.
    """
    try:
        video = OpenCVVideoBackendMixin.open_video_capture(data)
    except ValueError:
        return None
    if int(video.get(cv2.CAP_PROP_FRAME_COUNT)) != 1:
        return None
    is_there, frame = video.read()
    if not is_there:
        return None
    rate = float(video.get(cv2.CAP_PROP_FPS)) or 1.0
    known = {
        "total_num_frames": 1, "fps": rate, "duration": 1 / rate, "video_backend": "opencv", "frames_indices": [0],
        "do_sample_frames": False,
    }  # fmt: skip
    return MediaWithBytes((cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None], known), data)


class RefusingConnector(MediaConnector):
    """Refuses a request whose images or videos it cannot come by."""

    def load_from_url(self, url: str, media_io: Any, **settings: Any) -> Any:
        """Load what an address names."""
        with _refusing(url, media_io, settings.get("fetch_timeout")):
            return super().load_from_url(url, self._reader(media_io), **settings)

    async def load_from_url_async(self, url: str, media_io: Any, **settings: Any) -> Any:
        """Load what an address names."""
        with _refusing(url, media_io, settings.get("fetch_timeout")):
            return await super().load_from_url_async(url, self._reader(media_io), **settings)

    def _reader(self, media_io: Any) -> Any:
        """Return who decodes in place of vLLM's own; images that the operator wants read otherwise stay vLLM's."""
        if isinstance(media_io, VideoMediaIO):
            return AnyLengthVideos(media_io)
        if isinstance(media_io, ImageMediaIO) and not self.media_io_kwargs.get("image"):
            return ImagesAsInBatches()
        return media_io


@contextmanager
def _refusing(url: str, media_io: Any, seconds: float | None) -> Iterator[None]:
    """Turn any failure inside the block into a refusal that names the address and the reason."""
    try:
        yield
    except Exception as error:
        reason = first_line(error).replace("`videos`", "video_url")
        if isinstance(error, TimeoutError):
            variable = next((name for kind, name in _LIMITS.items() if isinstance(media_io, kind)), "its timeout")
            reason = f"it did not arrive within {seconds} seconds ({variable} of the server)"
        what = "an image or video of this request" if url[:5].lower() == "data:" else shown_name(url)[:80]
        raise VLLMValidationError(f"{what} cannot be read: {reason}") from None
