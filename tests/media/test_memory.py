"""Small files that are large images: decoding takes no more memory than what models read of them, or is refused."""

import subprocess
import sys
import zlib
from pathlib import Path

import av
import pytest
from PIL import Image

from divprune.errors import MediaError
from divprune.media import load_image
from tests.media.makers import CONSTANT, write_video

pytestmark = pytest.mark.slow
MEBI = 2**20
MOST_MEBIBYTES = 640
"""More than the process had before: 2**26 pixels of four bytes, twice, and what is left of them."""

CODE = """
import resource, sys
from pathlib import Path
from divprune.errors import MediaError
from divprune.media import load_image, load_video
import av, numpy
from PIL import Image, ImageCms
Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = Path(sys.argv[1])
try:
    frames = load_video(path, 8).frames if path.suffix == ".mp4" else load_image(path).frames
    print(sum(frame.width * frame.height for frame in frames), end=" ")
except MediaError as error:
    assert len(str(error)) < 300
    print("refused", end=" ")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read(path: Path) -> tuple[str, int]:
    """What is read of a file in a process of its own: pixels or a refusal, and peak memory in MiB."""
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pixels, mebibytes = done.stdout.split()
    return pixels, int(mebibytes)


def write_png(path: Path, side: int, color_type: int, bits: int) -> None:
    """An empty image, written row by row: Pillow would need the memory that it is to cost."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[color_type]
    compressor = zlib.compressobj(9)
    row = bytes(1 + side * channels * bits // 8)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = side.to_bytes(4) + side.to_bytes(4) + bytes([bits, color_type, 0, 0, 0])
    palette = [(b"PLTE", bytes(6))] if color_type == 3 else []
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in [(b"IHDR", header), *palette, (b"IDAT", data), (b"IEND", b"")]:
            file.write(len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4))


@pytest.mark.parametrize(
    ("side", "color_type", "bits"),
    [(8_000, 0, 1), (8_000, 0, 16), (8_000, 2, 8), (8_000, 3, 8), (8_000, 6, 8), (13_000, 0, 1), (13_000, 2, 8)],
)
def test_png_bombs(tmp_path: Path, side: int, color_type: int, bits: int) -> None:
    path = tmp_path / "bomb.png"
    write_png(path, side, color_type, bits)
    assert path.stat().st_size < MEBI
    pixels, mebibytes = read(path)
    assert mebibytes < MOST_MEBIBYTES
    assert (pixels == "refused") == (side == 13_000)
    assert pixels == "refused" or int(pixels) <= 2**24


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_decoded_at_the_size_that_is_read(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "bomb.jpg"
    Image.new("RGB", (12_000, 12_000)).save(path, progressive=progressive)
    pixels, mebibytes = read(path)
    assert mebibytes < MOST_MEBIBYTES
    # A progressive one needs memory for all of it.
    assert (pixels == "refused") == progressive


@pytest.mark.parametrize("name", ["WEBP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_other_bombs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb"
    options = {"TIFF": {"compression": "tiff_lzw"}, "WEBP": {"method": 0}, "AVIF": {"speed": 10}}.get(name, {})
    side = 6_000 if name in ("AVIF", "JPEG2000") else 12_000
    Image.new("L", (side, side)).save(path, name, **options)
    pixels, mebibytes = read(path)
    assert (pixels, mebibytes < MOST_MEBIBYTES) == ("refused", True)


def test_video_bombs(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame(7680, 4320, "yuv420p")))
        container.mux(stream.encode())
    pixels, mebibytes = read(path)
    assert mebibytes < MOST_MEBIBYTES + 4 * 2**27 // MEBI
    assert int(pixels) <= 2**27


def test_an_ordinary_image_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.new("RGB", (4096, 4096)).save(path)
    assert load_image(path).frames[0].size == (4096, 4096)
    Image.new("RGB", (6000, 4000)).save(path)
    width, height = load_image(path).frames[0].size
    assert width * height <= 2**24 < (width + 2) * (height + 2)
    assert abs(width - 1.5 * height) <= 2  # pixels: both are rounded


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(MediaError, match="more than 8,000 pixels"):
        load_image(path)


def test_a_video_of_many_frames_is_read_one_by_one(tmp_path: Path) -> None:
    pixels, mebibytes = read(write_video(tmp_path / "video.mp4", CONSTANT))
    assert int(pixels) > 0
    assert mebibytes < MOST_MEBIBYTES
