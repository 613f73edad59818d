"""Seeded inputs, numbers only, and what our methods keep of them: `python -m tools.fidelity_inputs FOLDER`.

For each seed `image-SEED.safetensors` and `video-SEED.safetensors`, float64, and of all seeds `picks.json`: method ->
seed -> kept indices, in the order in which they were picked. Whoever has an author's code feeds it the same numbers and
compares the indices.
"""

import argparse
import json
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
FRAMES, FRAME_SIDE = 8, 8
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


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def picks(method: Method, inputs: Arrays, is_video: bool) -> list[int]:
    """Return the indices that a method keeps, in its own order; of a merging method those of its anchors."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    tokens: Tensor = tensors.pop("visual_tokens")
    frames, side = (FRAMES, FRAME_SIDE) if is_video else (1, SIDE)
    pieces = tuple(Piece(frame * side**2, side, side, side) for frame in range(frames))
    known: dict[str, Any] = {"modality": "video" if is_video else "image", "grid": (frames, side, side)}
    context = ItemContext(**known, pieces=pieces, **tensors)
    if isinstance(method, MergingMethod):
        return checked_merge(method, tokens, NUM_KEEP, context).anchors.tolist()
    found: list[int] = method.select(tokens, NUM_KEEP, context).tolist()
    return found


def comparable() -> dict[str, bool]:
    """Return the methods of papers that act before the LLM on what is drawn here, and whether they want a video."""
    found = {}
    for known in built_in():
        if known.paper is None or known.count == "schedule" or known.name == "fitprune":
            continue
        method = get_method(known.name)
        for is_video, draw in ((False, image_inputs), (True, video_inputs)):
            inputs = draw(0)
            if known.name not in found and not method.layers and method.needs <= inputs.keys() | {"grid", "pieces"}:
                try:
                    picks(method, inputs, is_video)
                except ValueError:
                    continue
                found[known.name] = is_video
    return found


def write(folder: Path, num_seeds: int) -> None:
    """Write the inputs and the picks."""
    make_folder("output", folder)
    kept: dict[str, dict[int, list[int]]] = {}
    methods = comparable()
    for seed in range(num_seeds):
        drawn = {False: image_inputs(seed), True: video_inputs(seed)}
        for is_video, arrays in drawn.items():
            save_file(arrays, folder / f"{'video' if is_video else 'image'}-{seed}.safetensors")
        for name, is_video in methods.items():
            kept.setdefault(name, {})[seed] = picks(get_method(name), drawn[is_video], is_video)
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
