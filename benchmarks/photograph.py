"""What methods keep of a photograph, in the shape of a real vision tower: `python -m benchmarks.photograph`.

Writes results/photograph.json, from which the figure of that name is drawn. Tower and projector have the shape of
LLaVA-1.5-7B's (CLIP ViT-L/14-336) and random weights, so that nothing is downloaded: photograph, token grid, selection
and drawing are real, the features are not. A few seconds.
"""

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import CLIPImageProcessor

from divprune.budget import Budget
from divprune.efficiency import architecture_config, random_model
from divprune.methods import ItemContext, get_method
from divprune.records import Record, provenance

PHOTOGRAPH = Path(__file__).parent / "images" / "coffee.jpg"
CREDIT = "Coffee cup: photograph by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0; from scikit-image's data"
ARCHITECTURE = "llava-1.5-7b"
KEPT = (("divprune", 0.25), ("divprune", 0.098), ("random", 0.098))
SEED = 0


def tokens_of(photograph: Image.Image) -> tuple[torch.Tensor, Image.Image]:
    """The visual tokens (576, 4096), and the photograph as the tower sees it: 336 x 336."""
    # One decoder layer, which is not run: tower and projector alone are of the real size.
    model = random_model(architecture_config(ARCHITECTURE, 1), dtype=torch.float32, seed=SEED)
    processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336)
    seen = processor(photograph, return_tensors="pt", do_normalize=False, do_rescale=False)["pixel_values"][0]
    pixels = processor(photograph, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tokens = model.base_model.get_image_features(pixels, return_dict=True).pooler_output[0]
    return tokens, Image.fromarray(seen.permute(1, 2, 0).to(torch.uint8).numpy())


def kept(tokens: torch.Tensor) -> list[dict[str, Any]]:
    """A row a method and keep ratio, with ascending token indices."""
    side = round(len(tokens) ** 0.5)
    context = ItemContext(grid=(1, side, side))
    rows = []
    for name, keep_ratio in KEPT:
        picks = get_method(name).select(tokens, Budget(keep_ratio).count(len(tokens)), context)
        rows.append({"method": name, "keep_ratio": keep_ratio, "kept_indices": sorted(picks.tolist())})
    return rows


def measured() -> Record:
    """The record."""
    tokens, seen = tokens_of(Image.open(PHOTOGRAPH).convert("RGB"))
    side = round(len(tokens) ** 0.5)
    config = {
        "architecture": ARCHITECTURE,
        "weights": "random",
        "seed": SEED,
        "grid": [side, side],
        "num_visual_tokens": len(tokens),
        "credit": CREDIT,
        "picture_png_base64": base64.b64encode(png(seen)).decode(),
    }
    return Record("photograph", config, kept(tokens), provenance())


def png(image: Image.Image) -> bytes:
    """In 128 colours: a third of the size."""
    buffer = io.BytesIO()
    image.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    print(measured().save(parser.parse_args().output))


if __name__ == "__main__":
    main()
