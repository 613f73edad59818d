"""Images from files: upright, RGB, complete, scaled to what models read, or a clear refusal."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage import data

from divprune.errors import MediaError
from divprune.media import image_suffixes, load_image

SIZE = (96, 64)
GREY = Image.fromarray(data.camera()).resize(SIZE)
COLOR = Image.fromarray(data.chelsea()).resize(SIZE)
GREYS, COLORS = (np.asarray(image).astype(np.float64) for image in (GREY, COLOR))

ROUNDING = 1  # levels of 255: of values between two levels
COLOR_SPACE = 4  # levels: there and back through another colour space
LOSSY = 40  # levels: what compression may cost a pixel

FORMATS = {"AVIF": LOSSY, "BMP": 0, "GIF": 0, "JPEG": LOSSY, "JPEG2000": 0, "PNG": 0, "PPM": 0, "TGA": 0, "TIFF": 0,
           "WEBP": LOSSY}  # fmt: skip


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def levels_apart(path: Path, known: Image.Image) -> int:
    found = load_image(path).frames[0]
    assert (found.mode, found.size) == ("RGB", known.size)
    difference = np.asarray(found).astype(int) - np.asarray(known.convert("RGB")).astype(int)
    return int(np.abs(difference).max())


def test_an_image_is_rgb_and_named_as_given(tmp_path: Path) -> None:
    medium = load_image(save(tmp_path / "image.png", COLOR))
    assert (medium.name, medium.kind, medium.note) == (str(tmp_path / "image.png"), "image", "")
    assert medium.frames[0].tobytes() == COLOR.tobytes()


@pytest.mark.parametrize(("name", "levels"), FORMATS.items())
def test_every_enabled_format_is_read(tmp_path: Path, name: str, levels: int) -> None:
    assert levels_apart(save(tmp_path / "image", GREY, format=name), GREY) <= levels


@pytest.mark.parametrize("name", ["DDS", "DIB", "EPS", "ICNS", "ICO", "IM", "MSP", "PCX", "PDF", "SGI", "XBM"])
def test_no_other_format_is_opened(tmp_path: Path, name: str) -> None:
    image = GREY.convert("1" if name in ("MSP", "XBM") else "RGB")
    path = save(tmp_path / "image.png", image.resize((64, 64)), format=name)
    with pytest.raises(MediaError, match=r"not an image that Pillow can read|render the page first"):
        load_image(path)


def test_names_of_images_are_those_of_enabled_formats() -> None:
    assert {".jpg", ".png", ".webp", ".tif", ".avif"} <= image_suffixes()
    assert not {".eps", ".pdf", ".ico", ".mpg", ".svg"} & image_suffixes()


def in_mode(mode: str) -> Image.Image:
    """The photograph in a mode of Pillow."""
    if mode == "LAB":
        rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(COLOR, rgb, lab, outputMode="LAB")
    if mode.startswith("I;16"):
        return Image.fromarray((GREYS * 257).astype(">u2" if mode == "I;16B" else "<u2"))
    if mode == "RGBa":
        return COLOR.convert("RGBA").convert("RGBa")
    return (GREY if mode in ("1", "L", "LA", "I", "F") else COLOR).convert(mode)


GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B")
COLOR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
EXACTLY = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}


def written(name: str, mode: str) -> bytes | None:
    """The photograph as a file of that format and mode; None if Pillow writes none."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            in_mode(mode).save(buffer, name, **EXACTLY.get(name, {}))
    except (OSError, KeyError, ValueError):
        return None
    with Image.open(buffer) as image:
        is_another = image.mode in ("1", "L", "P", "RGB") and image.mode != mode
    return None if is_another else buffer.getvalue()


FILES = {
    (name, mode): content
    for name in ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    for mode in (*GREY_MODES, *COLOR_MODES)
    if (content := written(name, mode)) is not None and (name, mode) != ("TIFF", "YCbCr")  # Pillow cannot read its own
}


@pytest.mark.parametrize(("name", "mode"), FILES)
def test_every_mode_is_read_as_it_looks(tmp_path: Path, name: str, mode: str) -> None:
    path, image = tmp_path / "image", in_mode(mode)
    path.write_bytes(FILES[name, mode])
    known = image.convert("RGB") if mode in ("1", "P", "PA") else GREY if mode in GREY_MODES else COLOR
    slack = LOSSY if name == "JPEG" else COLOR_SPACE if mode == "LAB" else ROUNDING
    assert levels_apart(path, known) <= slack


# Values as files of cameras, microscopes and programs hold them: numpy type, and the value of each level of 0 to 255.
DEPTHS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "8 bits in 16": ("u2", lambda levels: levels),
    "10 bits in 16": ("u2", lambda levels: levels * 1023 / 255),
    "12 bits in 16": ("u2", lambda levels: levels * 4095 / 255),
    "16 bits": ("u2", lambda levels: levels * 257),
    "signed 16 bits": ("i2", lambda levels: levels * 32767 / 255),
    "around zero": ("i2", lambda levels: (levels - 128) * 256),
    "16 bits in 32": ("i4", lambda levels: levels * 257),
    "signed 32 bits": ("i4", lambda levels: levels * 2.0**23),
    "unsigned 32 bits": ("u4", lambda levels: levels * 2.0**24),
    "0 to 1": ("f4", lambda levels: levels / 255),
    "0 to 255": ("f4", lambda levels: levels),
    "0 to 65535": ("f4", lambda levels: levels * 257),
    "any fractions": ("f4", lambda levels: levels / 50 - 1.5),
}


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_greys_are_scaled_by_their_range(tmp_path: Path, depth: str, byte_order: str) -> None:
    dtype, values = DEPTHS[depth]
    # The whole range, so that least and largest are those of the known image.
    levels = GREYS.copy()
    levels[0, :2] = 0, 255
    path = tmp_path / "image.tiff"
    tifffile.imwrite(path, values(levels).round(0 if dtype[0] != "f" else 9).astype(dtype), byteorder=byte_order)
    if (depth, byte_order) == ("unsigned 32 bits", ">"):
        with pytest.raises(MediaError, match="not an image that Pillow can read"):
            load_image(path)
    else:
        assert levels_apart(path, Image.fromarray(levels.astype(np.uint8))) <= ROUNDING


def test_a_dark_deep_image_stays_as_dark_as_its_bits(tmp_path: Path) -> None:
    for value, level in ((40_000, 156), (1_000, 249), (200, 200)):
        path = save(tmp_path / f"{value}.png", Image.fromarray(np.full((4, 4), value, np.uint16)))
        assert load_image(path).frames[0].getpixel((0, 0)) == (level, level, level)


@pytest.mark.parametrize(
    "kind", ["half", "double", "unsigned 64", "rgb float", "rgb 32", "rgb 12 in 16", "planes", "i1"]
)
def test_what_pillow_would_read_wrong_is_refused(tmp_path: Path, kind: str) -> None:
    rgb = {"photometric": "rgb"}
    values, options = {
        "half": ((GREYS / 255).astype("f2"), {}),
        "double": ((GREYS / 255).astype("f8"), {}),
        "unsigned 64": (GREYS.astype("u8"), {}),
        "rgb float": ((COLORS / 255).astype("f4"), rgb),
        "rgb 32": (COLORS.astype("u4"), rgb),
        "rgb 12 in 16": ((COLORS * 16).astype("u2"), rgb),
        "planes": (np.moveaxis(COLORS * 257, 2, 0).astype("u2"), rgb | {"planarconfig": "separate"}),
        "i1": ((GREYS / 2).astype("i1"), {}),
    }[kind]
    path = tmp_path / "image.tiff"
    tifffile.imwrite(path, values, **options)
    with pytest.raises(MediaError) as refusal:
        load_image(path)
    assert len(str(refusal.value)) < 300


def test_colors_of_16_bits_and_inverted_greys_come_right(tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    tifffile.imwrite(path, (COLORS * 257).astype("u2"), photometric="rgb")
    assert levels_apart(path, COLOR) <= ROUNDING
    for levels in ((255 - GREYS).astype("u1"), (65535 - GREYS * 257).astype("u2")):
        tifffile.imwrite(path, levels, photometric="miniswhite")
        assert levels_apart(path, GREY) <= ROUNDING


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([200, 0, 0, 0, 200, 0])
        path = save(tmp_path / "image.png", image, transparency=0)
    else:
        path = save(tmp_path / "image.png", Image.new(mode, (4, 4), (90,) * (len(mode) - 1) + (0,)))
    assert load_image(path).frames[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_orientation_tag_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    corner = Image.new("L", (32, 16))
    corner.paste(255, (0, 0, 8, 8))
    turn = Image.Transpose
    stored = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
        7: turn.TRANSVERSE, 8: turn.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = corner.transpose(stored[orientation]) if orientation > 1 else corner
    shown = load_image(save(tmp_path / f"image.{suffix}", image, exif=exif)).frames[0]
    assert shown.size == (32, 16)
    assert np.asarray(shown.convert("L"))[2:6, 2:6].min() > 255 - LOSSY


def several_pages(path: Path) -> Path:
    pages = [Image.new("RGB", (8, 8), (60 * number, 0, 0)) for number in range(3)]
    return save(path, pages[0], save_all=True, append_images=pages[1:])


@pytest.mark.parametrize("suffix", ["tiff", "gif", "webp", "png"])
def test_of_several_pages_the_first_is_used_and_said(tmp_path: Path, suffix: str) -> None:
    path = several_pages(tmp_path / f"pages.{suffix}")
    medium = load_image(path)
    assert medium.note == f"{path} holds 3 pages or frames; the first is used, another by `page`"
    reds = [medium.frames[0], *(load_image(path, page=page).frames[0] for page in (1, 2, 3))]
    for red, expected in zip(reds, (0, 0, 60, 120), strict=True):
        assert abs(red.getpixel((4, 4))[0] - expected) <= COLOR_SPACE
    assert load_image(path, page=2).note == ""
    for page in (0, 4, -1):
        with pytest.raises(MediaError, match=f"`page` must be from 1 to 3 .*, got {page}"):
            load_image(path, page=page)


def test_a_single_image_has_one_page(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", GREY)
    assert load_image(path, page=1).frames == load_image(path).frames
    with pytest.raises(MediaError, match="`page` must be from 1 to 1"):
        load_image(path, page=2)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"%PDF-1.7\n...", "it is a PDF"),
        ("a.png", b"\xef\xbb\xbf%PDF-1.7\n...", "it is a PDF"),
        ("a.svg", b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG"),
        ("a.svgz", b"\x1f\x8b\x08", "it is an SVG"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0", "it is PostScript"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "it is HEIC: save it as JPEG or PNG"),
        ("a.txt", b"not an image", "a video goes with `videos`"),
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0", "a video goes with `videos`"),
        ("a.png", b"", "not an image"),
    ],
)
def test_what_has_no_pixels_is_refused_with_the_next_step(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason) as refusal:
        load_image(path)
    assert ("render the page first" in str(refusal.value)) == ("it is" in reason and "HEIC" not in reason)


@pytest.mark.parametrize("format_name", FORMATS)
def test_truncated_image_is_refused(tmp_path: Path, format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_name)
    path = tmp_path / "half"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(MediaError, match=r"truncated or damaged|not an image"):
        load_image(path)


def test_any_cut_of_an_image_is_refused_or_complete(tmp_path: Path) -> None:
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


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.png", "no such image"), (tmp_path, "not a file")):
        with pytest.raises(MediaError, match=reason):
            load_image(path)
