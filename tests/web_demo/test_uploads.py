"""Strange uploads: read as elsewhere, or refused by a message for people, without folders or names of arguments."""

import io
from pathlib import Path

import pytest
from PIL import Image

from divprune.errors import MediaError
from divprune.media.pixels import MAX_PIXELS
from divprune.web_demo import uploads
from divprune.web_demo.uploads import read_upload


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_one_pixel(tmp_path: Path) -> None:
    medium = read_upload(save(tmp_path / "dot.png", Image.new("RGB", (1, 1), "red")), 8)
    assert (medium.name, medium.frames[0].size, medium.frames[0].getpixel((0, 0))) == ("dot.png", (1, 1), (255, 0, 0))


def test_an_animated_gif_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    medium = read_upload(save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:]), 8)
    assert medium.frames[0].getpixel((0, 0)) == (255, 0, 0)
    assert medium.note == "moving.gif holds 2 pages or frames; the first is used"


def test_a_large_image_is_scaled_down(tmp_path: Path) -> None:
    medium = read_upload(save(tmp_path / "large.jpg", Image.new("RGB", (5000, 4000), "green")), 8)
    width, height = medium.frames[0].size
    assert width * height <= MAX_PIXELS < 5000 * 4000


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "LA", "1", "P", "L"])
def test_every_kind_of_pixel_becomes_rgb(mode: str, tmp_path: Path) -> None:
    name = "image.tiff" if mode == "CMYK" else "image.png"
    assert read_upload(save(tmp_path / name, Image.new(mode, (8, 8))), 8).frames[0].mode == "RGB"


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = Image.new("I;16", (8, 8), 40_000)
    assert read_upload(save(tmp_path / "deep.png", deep), 8).frames[0].getpixel((0, 0)) == (156, 156, 156)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.png", b"no pixels here", "words.png is not an image that Pillow can read"),
        ("empty.jpg", b"", "empty.jpg is not an image that Pillow can read"),
        ("cut.png", png()[:800], "cut.png is truncated or damaged"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is an SVG: render the page first"),
        ("words.mp4", b"no frames here", "words.mp4 is not a video that can be decoded"),
    ],
)
def test_what_is_no_image_is_told(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    pytest.importorskip("av")
    with pytest.raises(MediaError) as caught:
        read_upload(path, 8)
    assert message in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "`" not in str(caught.value)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "noise.png", Image.effect_noise((64, 64), 50))
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 100)
    with pytest.raises(MediaError, match=r"noise\.png has more than 100 bytes; give a smaller one"):
        read_upload(path, 8)


def test_a_short_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "short.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(12):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), (20 * level,) * 3))))
        container.mux(stream.encode())
    medium = read_upload(path, 4)
    assert (medium.name, medium.kind, len(medium.frames), medium.num_frames) == ("short.mp4", "video", 4, 12)
