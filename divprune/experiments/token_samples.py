"""What methods keep of many images, and what a call with each takes: the record behind the figures about tokens."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from divprune.config import Newlines, Positions, Scope
from divprune.efficiency.measure import time_generation
from divprune.errors import DivpruneError
from divprune.evaluation.runs import UNPRUNED
from divprune.huggingface import ItemReport, prune
from divprune.methods import MergingMethod, Method, get_method
from divprune.methods.registry import fidelity_of
from divprune.records import quantiles
from divprune.selection import select

NUM_SAMPLES = 2
"""Images that are kept in the record, with what each method keeps of them; of the first also the tokens."""
DIGITS = 5
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Shown:
    """An image that a model is asked about.

    Attributes:
        image: as figures draw it.
        inputs: what `generate` takes, on the model's device.
        tokens: (M, d) its visual tokens before pruning.
        grid: rows and columns of its tokens on `image`; None where they form none.
        colors: of each token's place on the image, for figures, 0 to 255; None where `grid` tells.
    """

    image: Image.Image
    inputs: Mapping[str, Any]
    tokens: Tensor
    grid: tuple[int, int] | None = None
    colors: Sequence[Color] | None = None


@dataclass
class MethodSamples:
    """One method over all images.

    Attributes:
        name: how the record calls it.
        method: as `get_method` reads it, or "unpruned".
        keep_ratio: fraction kept; None if `num_keep` is given, or the method needs no budget.
        num_keep: how many are kept.
        positions: as for `prune`.
        scope: as for `prune`.
        newlines: as for `prune`.
        ttft_seconds: from pixels to the first token, one an image.
        max_min_distances: of what is kept, one an image; empty where fewer than two tokens are kept.
        kept_indices: of the first images.
        num_kept: of each image.
        refusal: why it does not run on this model; None if it does.
    """

    name: str
    method: str
    keep_ratio: float | None = None
    num_keep: int | None = None
    positions: Positions | None = None
    scope: Scope = "item"
    newlines: Newlines = "budget"
    ttft_seconds: list[float] = field(default_factory=list)
    max_min_distances: list[float] = field(default_factory=list)
    kept_indices: list[list[int]] = field(default_factory=list)
    num_kept: list[int] = field(default_factory=list)
    refusal: str | None = None

    def measure(self, model: Any, shown: Shown, place: int) -> None:
        """Answer about one image, number `place`."""
        if self.refusal is not None:
            return
        if self.method == UNPRUNED:
            self.ttft_seconds.append(time_generation(model, shown.inputs, 1).ttft_seconds)
            return
        try:
            method = drawn(get_method(self.method), place)
            how: Any = {"keep_ratio": self.keep_ratio, "num_keep": self.num_keep, "positions": self.positions}
            how |= {"scope": self.scope, "newlines": self.newlines}
            with prune(model, method, **how) as pruning:
                seconds = time_generation(model, shown.inputs, 1).ttft_seconds
        except (DivpruneError, ValueError, NotImplementedError) as error:
            self.refusal = " ".join(str(error).split())
            return
        if pruning.last is None or not pruning.last.items:
            self.refusal = "the model's prompt held no image"
            return
        self.ttft_seconds.append(seconds)
        self._note(pruning.last.items[0], method, shown.tokens, place)

    def _note(self, item: ItemReport, method: Method, tokens: Tensor, place: int) -> None:
        self.num_kept.append(item.num_kept)
        if place < NUM_SAMPLES:
            self.kept_indices.append(item.kept_indices.tolist())
        if item.num_kept > 1:
            # Also where tokens are dropped inside the LLM, the distance is that of the visual tokens.
            kept = item.kept_tokens if isinstance(method, MergingMethod) else tokens[item.kept_indices]
            distance = select(kept, num_keep=len(kept)).max_min_distance
            self.max_min_distances.append(float(f"{distance:.{DIGITS}g}"))

    def row(self) -> dict[str, Any]:
        """Return what was measured, ready for a record."""
        row: dict[str, Any] = {"case": "method", "method": self.name, "fidelity": fidelity_of(self.method)}
        row["refusal"] = self.refusal
        if self.refusal is not None:
            return row
        row["num_kept"] = sum(self.num_kept) / len(self.num_kept) if self.num_kept else None
        return row | quantiles(self.ttft_seconds, "ttft_") | {"max_min_distances": self.max_min_distances}


def token_rows(
    model: Any,
    images: Iterable[Shown],
    methods: Sequence[MethodSamples],
    after_image: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Ask about every image with every method in turns, after a round to warm up.

    Args:
        model: a model of a supported family.
        images: what it is asked about.
        methods: nothing measured yet.
        after_image: called after each image.

    Returns:
        One row a method, then one an image of the first `NUM_SAMPLES`.
    """
    samples = []
    for place, shown in enumerate(images):
        if place == 0:
            for one in methods:
                MethodSamples(one.name, one.method, one.keep_ratio, one.num_keep, one.positions).measure(
                    model, shown, place
                )
        for one in methods:
            one.measure(model, shown, place)
        if place < NUM_SAMPLES:
            samples.append(_sample(place, shown, methods))
        after_image()
    return [one.row() for one in methods] + samples


def drawn(method: Method, place: int) -> Method:
    """Return the method, whose random draws, if it makes any, are those of image number `place`."""
    has_seed = "seed" in {each.name for each in fields(method)}
    changed: Any = {"seed": place}
    return replace(method, **changed) if has_seed else method


def all_tokens(model: Any, inputs: Mapping[str, Any]) -> ItemReport:
    """Return what a model makes of the first image of a prompt, every visual token kept.

    Raises:
        ValueError: there is no image in the prompt.
    """
    with torch.inference_mode(), prune(model, "uniform", keep_ratio=1.0) as pruning:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    if pruning.last is None or not pruning.last.items:
        raise ValueError("inputs must hold an image, got none")
    return pruning.last.items[0]


def _sample(place: int, shown: Shown, methods: Sequence[MethodSamples]) -> dict[str, Any]:
    """Return an image, which tokens of it each method keeps, and of the first image the tokens."""
    buffer = io.BytesIO()
    shown.image.save(buffer, "PNG", optimize=True)
    row: dict[str, Any] = {"case": "sample", "scene": place, "grid": None if shown.grid is None else list(shown.grid)}
    if shown.colors is not None:
        row["token_colors"] = [list(color) for color in shown.colors]
    row["kept_indices"] = {one.name: one.kept_indices[place] for one in methods if len(one.kept_indices) > place}
    row["picture_png_base64"] = base64.b64encode(buffer.getvalue()).decode()
    if place == 0:
        row["tokens_float16_base64"] = base64.b64encode(shown.tokens.half().cpu().numpy().tobytes()).decode()
    return row
