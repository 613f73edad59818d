"""Questions about the first toy scenes, answered from all visual tokens and from a few: `python -m benchmarks.answers`.

Writes results/answers.json, from which the figure at the top of README.md is drawn. Seconds.
"""

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, questions, scene
from divprune.records import Record

KEEP_RATIO = 0.098
METHOD = "divprune"
KINDS = ("count", "color", "position")
"""What is asked of the first scene, of the second, and so on."""


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


@torch.inference_mode()
def row_of(model: Any, processor: Any, seed: int, kind: str) -> dict[str, Any]:
    """A scene, a question about it, and both answers."""
    shown = scene(seed, "test")
    asked = next(question for question in questions(shown) if question.kind == kind)
    content = [{"type": "image"}, {"type": "text", "text": asked.prompt}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=shown.image, text=prompt, return_tensors="pt")

    def answer() -> str:
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    unpruned = answer()
    with prune(model, METHOD, keep_ratio=KEEP_RATIO) as pruning:
        pruned = answer()
    item = pruning.last.items[0]
    side = round(item.num_visual_tokens**0.5)
    return {
        "case": "answer", "scene": seed, "prompt": asked.prompt, "expected": asked.answer, "answer_unpruned": unpruned,
        "answer": pruned, "grid": [side, side], "kept_indices": item.kept_indices.tolist(),
        "picture_png_base64": png(shown.image),
    }  # fmt: skip


def measured() -> Record:
    """A question about each of the first test scenes."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    rows = [row_of(model, processor, seed, kind) for seed, kind in enumerate(KINDS)]
    config = {"model": "embedded", "split": "test", "method": METHOD, "keep_ratio": KEEP_RATIO}
    return Record("answers", config, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    print(measured().save(parser.parse_args().output))


if __name__ == "__main__":
    main()
