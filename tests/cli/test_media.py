"""Pictures and clips from files: upright, RGB, complete, or a clear refusal."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divprune.errors import MediaError
from divprune.media import _spread, load_image, load_video
from tests.cli.conftest import write_clip


def save(tmp_path: Path, image: Image.Image, name: str = "picture.png", **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_picture_is_rgb_and_named_as_given(picture: Path) -> None:
    medium = load_image(picture)
    assert (medium.name, medium.kind) == (str(picture), "image")
    assert (medium.frames[0].mode, medium.frames[0].size) == ("RGB", (451, 300))


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert load_image(save(tmp_path, image)).frames[0].getpixel((0, 0)) == (255, 255, 255)


def test_transparent_palette_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    path = save(tmp_path, image, transparency=0)
    assert load_image(path).frames[0].getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    assert load_image(save(tmp_path, image)).frames[0].getpixel((0, 0)) == (156, 156, 156)


def test_orientation_tag_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    path = save(tmp_path, Image.new("RGB", (8, 4)), "photograph.jpg", exif=exif)
    assert load_image(path).frames[0].size == (4, 8)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_picture_is_refused(tmp_path: Path, format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_name)
    path = tmp_path / "half"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(MediaError, match=r"truncated or damaged|not an image"):
        load_image(path)


def test_any_cut_of_a_picture_is_refused_or_complete(tmp_path: Path) -> None:
    noise, buffer = Image.effect_noise((16, 16), 50).convert("RGB"), io.BytesIO()
    noise.save(buffer, "PNG")
    path, whole = tmp_path / "cut.png", buffer.getvalue()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        try:
            pixels = load_image(path).frames[0].tobytes()
        except MediaError:
            continue
        assert pixels == noise.tobytes()  # only a checksum or the end mark is gone
        assert length > 0.9 * len(whole)


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(MediaError, match="more than 8,000 pixels"):
        load_image(path)


def test_missing_text_and_folder_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    for path, reason in ((tmp_path / "none.png", "no such picture"), (text, "not an image"), (tmp_path, "not a file")):
        with pytest.raises(MediaError, match=reason):
            load_image(path)


@pytest.mark.parametrize(("total", "count"), [(1, 1), (8, 8), (3, 8), (30, 4), (1000, 7)])
def test_spread_is_even_and_unique(total: int, count: int) -> None:
    indices = _spread(total, count)
    assert len(indices) == min(total, count)
    assert sorted(set(indices)) == indices
    assert set(indices) <= set(range(total))
    gaps = np.diff([-indices[0] - 1, *indices, 2 * total - indices[-1] - 1])
    assert gaps.max() - gaps.min() <= 1


def test_clip_frames_are_spread_evenly(clip: Path) -> None:
    medium = load_video(clip, 4)
    assert medium.frame_indices == (3, 11, 18, 26)
    assert (medium.num_frames, medium.frames_per_second) == (30, 25)
    assert all((frame.mode, frame.size) == ("RGB", (160, 120)) for frame in medium.frames)
    assert len({frame.tobytes() for frame in medium.frames}) == 4


def test_short_clip_gives_all_its_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "short.mp4", num_frames=3)
    assert load_video(tmp_path / "short.mp4", 8).frame_indices == (0, 1, 2)


@pytest.mark.parametrize(("name", "codec"), [("stream.mpg", "mpeg2video"), ("stream.m2v", "mpeg2video")])
def test_clip_without_frame_count_is_sampled_alike(tmp_path: Path, name: str, codec: str) -> None:
    av = pytest.importorskip("av")
    write_clip(tmp_path / name, num_frames=30, codec=codec)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].frames == 0
    medium = load_video(tmp_path / name, 4)
    assert len(medium.frames) == 4
    assert medium.frame_indices[-1] - medium.frame_indices[0] >= 20


def test_clip_with_more_packets_than_frames_is_still_spread(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divprune.media._count_packets", lambda path: 300)
    assert load_video(clip, 4).frame_indices == (3, 11, 18, 26)


def test_damaged_clip_and_picture_as_clip_are_refused(tmp_path: Path, clip: Path) -> None:
    half = tmp_path / "half.mp4"
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    text = tmp_path / "notes.mp4"
    text.write_text("not a clip")
    for path in (half, text):
        with pytest.raises(MediaError, match="not a video that can be decoded"):
            load_video(path, 4)


def test_missing_av_names_the_extra(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av.error", None)
    with pytest.raises(MediaError, match=r'pip install "divprune\[video\]"'):
        load_video(clip, 4)
