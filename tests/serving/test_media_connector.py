"""What a server makes of the images and videos that requests name, without an engine."""

import asyncio
import base64
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy
import pytest
from PIL import Image
from vllm.connections import HTTPConnection
from vllm.exceptions import VLLMValidationError

from divprune.media import load_image
from divprune.vllm_plugin.error_middleware import without_traceback_of_refusals
from divprune.vllm_plugin.media_connector import RefusingConnector
from tests.serving.clients import data_url, encoded
from tests.serving.hosts import running_host


def colours(size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = numpy.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def deep() -> Image.Image:
    """16 bits a pixel, most of them above what 8 bits hold."""
    return Image.fromarray((numpy.arange(40 * 30).reshape(30, 40) * 54).astype(numpy.uint16))


def video(folder: Path, num_frames: int) -> bytes:
    path = folder / f"{num_frames}.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (80, 64))
    for number in range(num_frames):
        writer.write(numpy.full((64, 80, 3), 30 * number, numpy.uint8))
    writer.release()
    return path.read_bytes()


def image_of(url: str, **settings: Any) -> Any:
    # Each call has an event loop of its own, and so must clients.
    connector = RefusingConnector(connection=HTTPConnection(reuse_client=False), **settings)
    return asyncio.run(connector.fetch_image_async(url)).media


def video_of(url: str) -> Any:
    return asyncio.run(RefusingConnector().fetch_video_async(url)).media


def refusal(fetch: Callable[..., Any], url: str, **settings: Any) -> str:
    with pytest.raises(VLLMValidationError) as caught:
        fetch(url, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def see_through() -> Image.Image:
    image = colours().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize(
    ("image", "kind"),
    [(colours(), "PNG"), (colours(), "AVIF"), (deep(), "PNG"), (deep(), "TIFF"), (see_through(), "WEBP")],
    ids=["PNG", "AVIF", "16 bits", "16 bits, TIFF", "see-through"],
)
def test_images_are_read_as_by_a_batch(image: Image.Image, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(image, kind))
    (frame,) = load_image(path).frames
    served = image_of(data_url(path.read_bytes()))
    assert (numpy.asarray(served) == numpy.asarray(frame)).all()
    assert len(numpy.unique(numpy.asarray(served))) > 30
    assert (numpy.asarray(image_of(path.as_uri(), allowed_local_media_path=str(tmp_path))) == served).all()


def test_an_operator_may_want_images_read_otherwise() -> None:
    black = image_of(data_url(encoded(see_through())), media_io_kwargs={"image": {"rgba_background_color": [0, 0, 0]}})
    assert numpy.asarray(black).mean() < numpy.asarray(image_of(data_url(encoded(see_through())))).mean()


AVIF = encoded(colours(), "AVIF")
PNG = encoded(colours())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "file:///etc/passwd cannot be read: Cannot load local files without"),
        ("ftp://host/image.png", "must be either a HTTP, data or file URL"),
        (data_url(AVIF[: len(AVIF) // 2]), "it is not an image that Pillow can read"),
        (data_url(PNG[: len(PNG) // 2]), "it is truncated or damaged"),
        (data_url(b"no image"), r"it is not an image that Pillow can read (a video goes with video_url)"),
        ("data:image/png,abc", "Only base64 data URLs are supported"),
        ("data:image/png;base64,@@@", "Non-base64 digit found"),
        ("http://127.0.0.1:99999/image.png", "cannot be read: "),
        ("http://127.0.0.1:9/image.png", "Cannot connect to host"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(url: str, reason: str) -> None:
    assert reason in refusal(image_of, url)


@pytest.mark.parametrize("behaviour", ["says nothing", "drips"])
def test_hosts_have_so_many_seconds(behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    monkeypatch.setenv("VLLM_IMAGE_FETCH_TIMEOUT", "1")
    with running_host(behaviour) as address:
        said = refusal(image_of, address)
    assert "did not arrive within 1 seconds (VLLM_IMAGE_FETCH_TIMEOUT of the server)" in said


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("hangs up", "isconnect"),
        ("talks nonsense", "HTTP 400 error"),
        ("answers 404", "HTTP 404 error"),
        ("answers 503", "503"),
        ("stops half-way", "payload is not completed"),
    ],
)
def test_hosts_that_fail_are_named(behaviour: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    with running_host(behaviour) as address:
        said = refusal(image_of, address)
    assert said.startswith(f"{address} cannot be read: ")
    assert reason in said


@pytest.mark.parametrize("loader", [None, "Qwen2VLVideoProcessor", "Qwen3VLVideoProcessor"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_a_video_may_have_any_number_of_frames(loader: str | None, num_frames: int, tmp_path: Path) -> None:
    data = data_url(video(tmp_path, num_frames))
    frames, known = asyncio.run(RefusingConnector().fetch_video_async(data, video_processor=loader)).media
    assert 1 <= len(frames) == len(known["frames_indices"]) <= num_frames
    assert frames.shape[1:] == (64, 80, 3)
    assert known["total_num_frames"] == num_frames
    assert known["fps"] == 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_an_image_is_no_video(kind: str) -> None:
    assert f"it is an image ({kind}) and was sent as a video" in refusal(video_of, data_url(encoded(colours(), kind)))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"no video", video(tmp_path, 8)[:300]):
        assert "Could not open video stream" in refusal(video_of, data_url(data))
    assert "it is not an image" in refusal(image_of, data_url(video(tmp_path, 8)))


def test_frames_of_a_video_come_as_images_too() -> None:
    frame = base64.b64encode(encoded(colours(), "JPEG")).decode()
    frames, _ = video_of(f"data:video/jpeg;base64,{frame},{frame}")
    assert frames.shape == (2, 30, 40, 3)
    assert "Failed to load image" in refusal(video_of, "data:video/jpeg;base64,AAAA,AAAA")


def test_images_without_end_are_refused() -> None:
    buffer = io.BytesIO()
    # 400 million pixels in 50 kilobytes.
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert "pixels; scale it down first" in refusal(image_of, data_url(buffer.getvalue()))


def logged(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except Exception:
        record = logging.LogRecord("vllm", logging.ERROR, "", 0, "Error in %s.", ("a stream",), sys.exc_info())
    assert without_traceback_of_refusals(record)
    return record


def test_the_log_has_one_line_of_a_refusal_and_the_traceback_of_a_failure() -> None:
    record = logged(VLLMValidationError("The prompt is empty"))
    assert record.getMessage() == "Error in a stream. The prompt is empty"
    assert record.exc_info is None
    assert logged(RuntimeError("a failure")).exc_info is not None
