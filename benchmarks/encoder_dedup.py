"""What is left to encode of documents, screens and photographs: `python -m benchmarks.encoder_dedup`.

Writes results/encoder-dedup.json: for each kind of image, geometry of patches and tolerance the units (visual tokens)
that `encoder="pixel-dedup"` leaves, and what the vision encoder costs before and after, in floating-point operations;
then how many small models with random weights answer the same. The images are drawn or come with scikit-image, and go
through the image processor of the models at full size. Nothing is timed: any machine counts the same. A few minutes.

Answers are equal to the last bit where nothing is redundant. Where something is they need not be, at tolerance 0
either: attention in the encoder counted each of n equal patches, with a rotary position of its own, and counts one now;
and the language model reads fewer tokens.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import data
from torch import Tensor
from transformers import PreTrainedModel, Qwen2VLImageProcessorPil

from benchmarks.pages import DRAWN
from divprune import prune
from divprune.efficiency import architecture_config, get_architecture, random_model
from divprune.efficiency.flops import encoder_flop
from divprune.efficiency.shapes import merging_tower_shape
from divprune.huggingface.encoding.pixel_prediction import encoded_instead
from divprune.records import Record, provenance

TOLERANCES = (0.0, 0.02, 0.1)
SEEDS = range(8)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
# As the published checkpoints' processors: up to 16,384 tokens of 28 x 28 pixels.
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 16384 * 28 * 28}
SMALL = 448
NUM_NEW_TOKENS = 16


@dataclass(frozen=True)
class Geometry:
    """How a family cuts images.

    Attributes:
        architecture: the name of a model of it, whose vision encoder is counted.
        patch_size: pixels a side.
        window_side: rows and columns of units in a window; None where all patches of a frame see each other.
        mean: that the processor takes off.
        deviation: by which it divides.
    """

    architecture: str
    patch_size: int
    window_side: int | None
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def processed(self, image: Image.Image) -> tuple[Tensor, list[int]]:
        """Patches (P, v) of an image, and its grid of them."""
        processor = Qwen2VLImageProcessorPil(
            size=PIXELS, patch_size=self.patch_size, image_mean=self.mean, image_std=self.deviation
        )
        found = processor(image, return_tensors="pt")
        return found["pixel_values"], found["image_grid_thw"][0].tolist()


GEOMETRIES = (
    Geometry("qwen2-vl-7b", 14, None),
    Geometry("qwen2.5-vl-7b", 14, 4),
    Geometry("qwen3-vl-8b", 16, None, (0.5,) * 3, (0.5,) * 3),
)


def images() -> dict[str, list[Image.Image]]:
    """Images by their kind."""
    drawn = {kind: [draw(seed) for seed in SEEDS] for kind, draw in DRAWN.items()}
    photographs = {f"photograph, {name}": [Image.fromarray(getattr(data, name)())] for name in PHOTOGRAPHS}
    values = np.random.default_rng(0).integers(0, 256, (1008, 1008, 3), dtype=np.uint8)
    return drawn | photographs | {"noise": [Image.fromarray(values)]}


def counted(kind: str, group: list[Image.Image], geometry: Geometry) -> Iterator[dict[str, Any]]:
    """A row a tolerance: means over the images of a kind, of which all have one size."""
    found = [geometry.processed(image) for image in group]
    for tolerance in TOLERANCES:
        fractions, before, after = [], [], []
        for pixels, (frames, rows, columns) in found:
            units, grid = pixels.unflatten(0, (-1, 4)).flatten(1), (frames, rows // 2, columns // 2)
            stays = encoded_instead(units, [grid], geometry.window_side, tolerance) == torch.arange(len(units))
            fractions.append(float(stays.double().mean()))
            before.append(flop(geometry, grid, torch.ones_like(stays)))
            after.append(flop(geometry, grid, stays))
        yield {
            "kind": kind,
            "architecture": geometry.architecture,
            "tolerance": tolerance,
            "num_images": len(group),
            "image_size": list(group[0].size),
            "num_visual_tokens": len(found[0][0]) // 4,
            "fraction_encoded": fmean(fractions),
            "smallest_fraction_encoded": min(fractions),
            "largest_fraction_encoded": max(fractions),
            "encoder_flop": fmean(after),
            "unpruned_encoder_flop": fmean(before),
        }


def flop(geometry: Geometry, grid: tuple[int, int, int], stays: Tensor) -> float:
    """Operations of the vision encoder and its projector on the units that stay."""
    config: Any = architecture_config(geometry.architecture)
    width = config.get_text_config().hidden_size
    shape = merging_tower_shape(config.model_type, config.vision_config, width, int(stays.sum()))
    if geometry.window_side is None:
        return encoder_flop(shape)
    # A patch sees those that are left in its window, on average over the patches.
    _, rows, columns = grid
    windows_across = -(-columns // geometry.window_side)
    row, column = torch.arange(rows).unsqueeze(1), torch.arange(columns)
    window = row // geometry.window_side * windows_across + column // geometry.window_side
    counts = torch.bincount(window.flatten()[stays])
    return encoder_flop(replace(shape, window_patches=4 * float((counts**2).sum() / counts.sum())))  # type: ignore[arg-type]


def small_model(geometry: Geometry) -> PreTrainedModel:
    """A model of the family with random weights and real patches, small enough to answer at once."""
    architecture = get_architecture(geometry.architecture)
    text = {
        **architecture.text, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "vocab_size": 512,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0, "bos_token_id": None,
        "eos_token_id": None,
    }  # fmt: skip
    text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [4, 2, 2]}
    vision = {
        **architecture.vision, "depth": 4, "embed_dim": 64, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
        "out_hidden_size": 64, "fullatt_block_indexes": [1, 3], "deepstack_visual_indexes": [1, 2],
    }  # fmt: skip
    config = type(architecture_config(geometry.architecture))(
        text_config=text, vision_config=vision, image_token_id=500, video_token_id=501, vision_start_token_id=502,
        vision_end_token_id=503,
    )  # fmt: skip
    model = random_model(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:  # of order one behind every layer, so that answers depend on the image
                weights.mul_(1 / weights.std() / (1 if "embed" in name else weights[0].numel() ** 0.5))
    return model


def answered(kind: str, group: list[Image.Image], geometry: Geometry, model: PreTrainedModel) -> dict[str, Any]:
    """A row: to how many images the small model answers the same from what is left of them."""
    equal, fractions = [], []
    for image in group:
        inputs = prompt(image, geometry)
        options: dict[str, Any] = {"max_new_tokens": NUM_NEW_TOKENS, "do_sample": False}
        with torch.inference_mode():
            expected = model.generate(**inputs, **options)
            with prune(model, "divprune", keep_ratio=1.0, encoder="pixel-dedup") as pruning:
                equal.append(torch.equal(model.generate(**inputs, **options), expected))
        fractions.append(pruning.last.num_encoded / pruning.last.num_visual_tokens)
    return {
        "kind": kind,
        "architecture": geometry.architecture,
        "weights": "small and random",
        "tolerance": 0.0,
        "num_images": len(group),
        "fraction_encoded": fmean(fractions),
        "num_equal_answers": sum(equal),
    }


def prompt(image: Image.Image, geometry: Geometry) -> dict[str, Any]:
    """The middle of an image, made small, between some words."""
    pixels, grid = geometry.processed(ImageOps.fit(image, (SMALL, SMALL)))
    ids = torch.tensor([[5, 6, 502, *[500] * (len(pixels) // 4), 503, 7, 8, 9]])
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == 500).int(),
        "pixel_values": pixels, "image_grid_thw": torch.tensor([grid]),
    }  # fmt: skip


def measured() -> Record:
    """The record."""
    groups = images().items()
    rows = [row for kind, group in groups for each in GEOMETRIES for row in counted(kind, group, each)]
    for geometry in GEOMETRIES:
        model = small_model(geometry)
        rows += [answered(kind, group, geometry, model) for kind, group in groups]
    config = {
        "rule": "left and upper neighbour, within a window where the encoder has windows",
        "tolerance_unit": "pixel values as the processor normalises them",
        "num_new_tokens": NUM_NEW_TOKENS,
        "credit": "photographs: scikit-image's data",
    }
    return Record("encoder-dedup", config, rows, provenance())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    print(measured().save(parser.parse_args().output))


if __name__ == "__main__":
    main()
