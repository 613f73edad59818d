"""Seeded inputs, numbers only, and what our methods keep of them: `python -m tools.fidelity_inputs FOLDER`.

For each seed `image-SEED.safetensors` (24 x 24 tokens), `tiles-SEED.safetensors` (a thumbnail and 2 x 2 tiles),
`video-SEED.safetensors` (8 frames) and `inside-SEED.safetensors` (an image at the entrance of a decoder layer), all
float64, and of all seeds `picks.json`: method -> seed -> kept indices, in the order in which they were picked. Whoever
has an author's code feeds it the same numbers and compares the indices.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from divprune.methods import ItemContext, MergingMethod, get_method
from divprune.methods.base import Method
from divprune.methods.item_context import Piece
from divprune.methods.merging import checked_merge
from divprune.methods.registry import built_in
from divprune.outputs import make_folder, write_whole

SIDE, WIDTH, VISION_WIDTH, HEADS, NUM_TEXT_TOKENS = 24, 64, 48, 4, 12
NUM_KEEP = 64
FRAMES, FRAME_SIDE, TILE_SIDE = 8, 8, 8
Arrays = dict[str, NDArray[np.float64]]


def image_inputs(seed: int) -> Arrays:
    """Draw an image of 24 x 24 tokens, and what methods read besides; NumPy's generator gives the same anywhere."""
    draw = np.random.default_rng(seed).standard_normal
    total = SIDE**2
    return {
        "visual_tokens": draw((total, WIDTH)),
        "vision_attention": _softmax(draw((HEADS, total))),
        "early_vision_attention": _softmax(draw((HEADS, total))),
        "vision_keys": draw((HEADS, total, VISION_WIDTH // HEADS)),
        "patch_features": draw((total, VISION_WIDTH)),
        "text_embeddings": draw((NUM_TEXT_TOKENS, WIDTH)),
    }


def video_inputs(seed: int) -> Arrays:
    """Draw a video of 8 frames of 8 x 8 tokens, each frame a little different from the one before."""
    draw = np.random.default_rng(seed).standard_normal
    steps = draw((FRAMES, FRAME_SIDE**2, WIDTH)) * np.array([1.0, *[0.3] * (FRAMES - 1)])[:, None, None]
    total = FRAMES * FRAME_SIDE**2
    tokens = steps.cumsum(axis=0).reshape(total, WIDTH)
    return {"visual_tokens": tokens, "vision_attention": _softmax(draw((HEADS, total)))}


def tiles_inputs(seed: int) -> Arrays:
    """Draw a thumbnail of 8 x 8 tokens and 2 x 2 tiles of as many, row by row, without newline tokens."""
    draw = np.random.default_rng(seed).standard_normal
    total = 5 * TILE_SIDE**2
    return {"visual_tokens": draw((total, WIDTH)), "vision_attention": _softmax(draw((HEADS, total)))}


def inside_inputs(seed: int) -> Arrays:
    """Draw what enters a decoder layer, and what methods inside the language model read there."""
    draw = np.random.default_rng(seed).standard_normal
    total, head = SIDE**2, WIDTH // HEADS
    text_attention = _softmax(draw((HEADS, NUM_TEXT_TOKENS, total)))
    return {
        "visual_tokens": draw((total, WIDTH)),
        "attention": np.ascontiguousarray(text_attention[:, -1]),  # safetensors writes what lies in memory
        "text_attention": text_attention,
        "visual_peak_attention": _softmax(draw((total,))),
        "keys": draw((HEADS, total, head)),
        "text_keys": draw((HEADS, NUM_TEXT_TOKENS, head)),
        "visual_query": draw((HEADS, head)),
        "text_states": draw((NUM_TEXT_TOKENS, WIDTH)),
        "text_embeddings": draw((NUM_TEXT_TOKENS, WIDTH)),
        "input_tokens": draw((total, WIDTH)),
    }


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


_WHOLE = (Piece(0, SIDE, SIDE, SIDE),)
_FRAMES = tuple(Piece(frame * FRAME_SIDE**2, FRAME_SIDE, FRAME_SIDE, FRAME_SIDE) for frame in range(FRAMES))
_TILES = (
    Piece(0, TILE_SIDE, TILE_SIDE, TILE_SIDE),
    Piece(TILE_SIDE**2, 2 * TILE_SIDE, 2 * TILE_SIDE, 2 * TILE_SIDE),
)
KINDS: dict[str, tuple[Callable[[int], Arrays], dict[str, Any]]] = {
    "image": (image_inputs, {"modality": "image", "grid": (1, SIDE, SIDE), "pieces": _WHOLE}),
    "tiles": (tiles_inputs, {"modality": "image", "pieces": _TILES}),
    "video": (video_inputs, {"modality": "video", "grid": (FRAMES, FRAME_SIDE, FRAME_SIDE), "pieces": _FRAMES}),
    "inside": (inside_inputs, {"modality": "image", "pieces": _WHOLE}),
}
"""What is drawn, and what is known of it besides."""
SECOND_STAGES = {"vscan": 16, "prunevid": 10, "holitom": 18, "flashvid": 20}
"""Methods with a stage inside the language model, and the layer at which the paper has it."""


def picks(method: Method, inputs: Arrays, kind: str) -> list[int]:
    """Return the indices that a method keeps, in its own order; of a merging method those of its anchors."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    tokens: Tensor = tensors.pop("visual_tokens")
    known = KINDS[kind][1]
    if kind == "inside":
        known = {**known, "layer": method.layers[-1], "final_norm": torch.nn.Identity()}
    context = ItemContext(**known, **tensors)
    if isinstance(method, MergingMethod):
        return checked_merge(method, tokens, NUM_KEEP, context).anchors.tolist()
    found: list[int] = method.select(tokens, NUM_KEEP, context).tolist()
    return found


def comparable() -> dict[str, str]:
    """Return the methods of papers that choose by what is drawn here, as `get_method` reads them, and of which kind."""
    found = {}
    for known in built_in():
        if known.paper is None or known.name in ("vtw", "fitprune"):  # neither has a choice of its own here
            continue
        kind = _kind_of(known)
        if kind is not None:
            found[known.name] = kind
        if known.name in SECOND_STAGES:
            found[f"{known.name}:layer={SECOND_STAGES[known.name]}"] = "inside"
    return found


def _kind_of(known: type[Method]) -> str | None:
    """Return what a method is shown: tiles only if it needs grids and cannot do without several."""
    method = get_method(known.name)
    if method.layers:
        return "inside"
    shown = "video" if "image" not in known.modalities else "tiles" if known.name == "globalcom2" else "image"
    draw, places = KINDS[shown]
    return shown if method.needs <= draw(0).keys() | places.keys() else None


def write(folder: Path, num_seeds: int) -> None:
    """Write the inputs and the picks."""
    make_folder("output", folder)
    kept: dict[str, dict[int, list[int]]] = {}
    methods = comparable()
    for seed in range(num_seeds):
        drawn = {kind: draw(seed) for kind, (draw, _) in KINDS.items()}
        for kind, arrays in drawn.items():
            save_file(arrays, folder / f"{kind}-{seed}.safetensors")
        for name, kind in methods.items():
            kept.setdefault(name, {})[seed] = picks(get_method(name), drawn[kind], kind)
    write_whole(folder / "picks.json", json.dumps({"num_keep": NUM_KEEP, "picks": kept}) + "\n")


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.seeds)


if __name__ == "__main__":
    main()
