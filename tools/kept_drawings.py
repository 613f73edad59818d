"""What each method keeps of one scene or video, drawn from the records of samples: docs/methods/kept/NAME.png."""

import base64
import io
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from divprune.figures.kept_on_image import faded
from divprune.methods import MergingMethod, Method
from divprune.methods.registry import built_in
from divprune.outputs import write_whole
from divprune.records import load_record

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "methods" / "kept"
ALL_TOKENS = {"image": "all-of-an-image", "video": "all-of-a-video"}
_ENLARGED = 2
_FRAMES_IN_A_ROW = 4
_PIXELS = {"image": "picture_png_base64", "video": "frames_png_base64"}


@cache
def sample_of(modality: str) -> tuple[float, Mapping[str, Any]]:
    """The keep ratio of a record of samples, and the first image or video in it."""
    record = load_record(ROOT / "results" / ("samples.json" if modality == "image" else "samples-video.json"))
    return record.config["keep_ratio"], next(row for row in record.rows if row["case"] == "sample")


def kept_by(method: str, modality: str) -> tuple[str, list[int]] | None:
    """The name, with parameters, and the kept indices of a method in the record; None if it is not there."""
    found = sample_of(modality)[1]["kept_indices"].items()
    return next(((name, kept) for name, kept in found if name.partition(":")[0] == method), None)


def drawing(modality: str, kept: list[int] | None) -> Image.Image:
    """The sample with what is dropped faded to the colour of its patch; as it is if `kept` is None."""
    sample = sample_of(modality)[1]
    content = io.BytesIO(base64.b64decode(sample[_PIXELS[modality]]))
    pixels = np.asarray(Image.open(content, formats=("PNG",)).convert("RGB"), dtype=np.float64) / 255
    *frames, rows, columns = sample["grid"]
    num_frames = frames[0] if frames else 1
    mask = np.full(num_frames * rows * columns, kept is None)
    mask[kept or []] = True
    by_frame = mask.reshape(num_frames, rows, columns)
    shown = [
        image if kept is None else faded(image, own)
        for image, own in zip(np.split(pixels, num_frames, axis=1), by_frame, strict=True)
    ]
    return Image.fromarray(_laid_out(shown))


def _laid_out(frames: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Frames in rows of some, each pixel enlarged."""
    rows = [
        np.concatenate(frames[start : start + _FRAMES_IN_A_ROW], axis=1)
        for start in range(0, len(frames), _FRAMES_IN_A_ROW)
    ]
    whole = np.round(np.concatenate(rows, axis=0) * 255).astype(np.uint8)
    return whole.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)


def modality_of(method: type[Method]) -> str:
    """What a method is drawn on: an image, or a video if it takes nothing else."""
    return "image" if "image" in method.modalities else "video"


def kept_section(method: type[Method]) -> str:
    """Two drawings, of all tokens and of the kept ones, and what they show."""
    modality = modality_of(method)
    found = kept_by(method.name, modality)
    if found is None:
        return "Not drawn: it keeps other tokens in each layer, as a recipe says that is found for one model."
    keep_ratio, sample = sample_of(modality)
    name, kept = found
    total = prod(sample["grid"])
    asked = f"keep ratio {keep_ratio}" if method.count == "exact" else "as many as it says itself"
    what = f"the embedded model's {total} tokens of a generated {modality}: {len(kept)} stay ({asked})"
    notes = [f"`{name}`, {what}. What is dropped is faded to the colour of its patch."]
    if issubclass(method, MergingMethod):
        notes.append("The patches shown are the places that the merged tokens take.")
    all_tokens, own = f"kept/{ALL_TOKENS[modality]}.png", f"kept/{method.name}.png"
    pair = f"![All tokens]({all_tokens}) ![What `{method.name}` keeps]({own})"
    return f"{pair}\n\n{' '.join(notes)}"


def drawings() -> dict[str, Image.Image]:
    """Every drawing by file name, those of all tokens among them."""
    found = {f"{name}.png": drawing(modality, None) for modality, name in ALL_TOKENS.items()}
    for method in built_in():
        kept = kept_by(method.name, modality_of(method))
        if kept is not None:
            found[f"{method.name}.png"] = drawing(modality_of(method), kept[1])
    return found


def write_drawings() -> None:
    """Write the drawings whose pixels have changed, and remove those of methods that are gone."""
    FOLDER.mkdir(exist_ok=True)
    wanted = drawings()
    for name, image in wanted.items():
        if not is_drawn(FOLDER / name, image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG", optimize=True)
            write_whole(FOLDER / name, buffer.getvalue())
            print(f"docs/methods/kept/{name} redrawn")
    for path in FOLDER.glob("*.png"):
        if path.name not in wanted:
            path.unlink()
            print(f"docs/methods/kept/{path.name} removed")


def is_drawn(path: Path, image: Image.Image) -> bool:
    """Whether a file shows these pixels; how they are compressed differs between versions of Pillow."""
    if not path.is_file():
        return False
    with Image.open(path, formats=("PNG",)) as there:
        return there.size == image.size and there.convert("RGB").tobytes() == image.tobytes()
