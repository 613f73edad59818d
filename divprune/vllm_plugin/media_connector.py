"""How a server comes by the images and videos that requests name: vLLM's connector, read by `divprune.media`.

Images are read as `divprune batch` and `divprune run` read them, so that the same file gives the same answer. Whatever
fails on the way from an address to pixels is a fault of the request, and said to be one.
"""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MediaConnector, MediaIO, MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

from divprune.errors import MediaError, first_line
from divprune.media import decode_image, shown_name, still_image_format

_LIMITS = {ImageMediaIO: "VLLM_IMAGE_FETCH_TIMEOUT", VideoMediaIO: "VLLM_VIDEO_FETCH_TIMEOUT"}
"""Environment variables of the server that say how many seconds an address has to deliver."""


class ImagesAsInBatches(ImageMediaIO):
    """Images that `divprune.media` decodes."""

    def load_bytes(self, data: bytes) -> MediaWithBytes[Any]:
        """Decode an image."""
        return MediaWithBytes(decode_image(data, "the image").frames[0], data)


class AnyLengthVideos(MediaIO[Any]):
    """Videos that vLLM decodes, those of a single frame too; still images are none."""

    def __init__(self, decoder: VideoMediaIO) -> None:
        super().__init__()
        self._decoder = decoder

    def load_bytes(self, data: bytes) -> MediaWithBytes[Any]:
        """Decode a video.

        Raises:
            MediaError: It is an image.
        """
        still = still_image_format(data)
        if still is not None:
            raise MediaError(f"it is an image ({still}) and was sent as a video; send it as image_url")
        try:
            return self._decoder.load_bytes(data)
        except ZeroDivisionError:
            # Qwen-VL's sampling takes frames by twos, and there is one only. Its processor repeats it.
            frames, known = VIDEO_LOADER_REGISTRY.load("opencv").load_bytes(data, num_frames=1)
            return MediaWithBytes((frames, known | {"do_sample_frames": False}), data)

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes[Any]:
        """Decode a video, or the JPEG frames of one."""
        if media_type.lower() == "video/jpeg":
            return self._decoder.load_base64(media_type, data)
        return self.load_bytes(b64decode(data, validate=True))

    def load_file(self, filepath: Any) -> MediaWithBytes[Any]:
        """Decode a video's file."""
        return self.load_bytes(filepath.read_bytes())


class RefusingConnector(MediaConnector):
    """Refuses a request whose images or videos it cannot come by."""

    def load_from_url(self, url: str, media_io: Any, **settings: Any) -> Any:
        """Load what an address names."""
        with _refusing(url, media_io):
            return super().load_from_url(url, self._reader(media_io), **settings)

    async def load_from_url_async(self, url: str, media_io: Any, **settings: Any) -> Any:
        """Load what an address names."""
        with _refusing(url, media_io):
            return await super().load_from_url_async(url, self._reader(media_io), **settings)

    def _reader(self, media_io: Any) -> Any:
        """Return who decodes in place of vLLM's own; images that the operator wants read otherwise stay vLLM's."""
        if isinstance(media_io, VideoMediaIO):
            return AnyLengthVideos(media_io)
        if isinstance(media_io, ImageMediaIO) and not self.media_io_kwargs.get("image"):
            return ImagesAsInBatches()
        return media_io


@contextmanager
def _refusing(url: str, media_io: Any) -> Iterator[None]:
    """Turn any failure inside the block into a refusal that names the address and the reason."""
    try:
        yield
    except Exception as error:
        reason = first_line(error)
        if isinstance(error, TimeoutError):
            variable = next((name for kind, name in _LIMITS.items() if isinstance(media_io, kind)), "its timeout")
            reason = f"it did not arrive in the seconds that {variable} of the server says"
        what = "an image or video of this request" if url[:5].lower() == "data:" else shown_name(url)[:80]
        raise VLLMValidationError(f"{what} cannot be read: {reason}") from None
