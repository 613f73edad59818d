"""Reading the record `samples`: images, tokens and kept indices out of its rows."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from divprune.figures.style import rows_of
from divprune.records import Record


def image_of(sample: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return a sample's image: (height, width, 3) in [0, 1]."""
    image = Image.open(io.BytesIO(base64.b64decode(sample["picture_png_base64"])), formats=("PNG",))
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def tokens(sample: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return a sample's visual tokens: (M, d)."""
    numbers = np.frombuffer(base64.b64decode(sample["tokens_float16_base64"]), dtype="<f2")
    return numbers.reshape(num_tokens(sample), -1).astype(np.float64)


def num_tokens(sample: Mapping[str, Any]) -> int:
    """Return M."""
    if sample.get("token_colors") is not None:
        return len(sample["token_colors"])
    rows, columns = sample["grid"]
    return int(rows * columns)


def token_colors(sample: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the colour of each token's place on the image: (M, 3) in [0, 1]."""
    if sample.get("token_colors") is not None:
        return np.asarray(sample["token_colors"], dtype=np.float64) / 255
    means: NDArray[np.float64] = patches(image_of(sample), sample["grid"]).mean(axis=(2, 3))
    return means.reshape(-1, 3)


def sample_titled(sample: Mapping[str, Any], method: str) -> tuple[str, list[int]] | None:
    """Return the name and the kept indices of a method, whatever its parameters; of several rows that of most tokens.

    None if the record has no row of it.
    """
    found = [(name, kept) for name, kept in sample["kept_indices"].items() if name.partition(":")[0] == method]
    return max(found, key=lambda each: len(each[1]), default=None)


def patches(image: NDArray[np.float64], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Cut an image into the patches of its tokens: (rows, columns, patch height, patch width, 3)."""
    rows, columns = grid
    height, width = image.shape[0] // rows, image.shape[1] // columns
    cut = image[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
    return cut.swapaxes(1, 2)


def measured_methods(record: Record) -> list[Mapping[str, Any]]:
    """Return the rows of the methods that ran."""
    return [row for row in rows_of(record, "method") if row["refusal"] is None]
