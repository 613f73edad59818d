"""What each method keeps of one toy video: `python -m benchmarks.video_samples`.

Writes results/samples-video.json, from which the drawings on the pages of methods for videos are made. Seconds.
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
from divprune.embedded import checkpoint_path, generated_video
from divprune.methods import available_methods
from divprune.records import Record

KEEP_RATIO = 0.1
FRAME_SIZE = 64  # pixels of a drawn frame
SEED = 0
QUESTION = "How many objects are there?"


def inputs_of(processor: Any, frames: tuple[Image.Image, ...]) -> dict[str, Any]:
    """One question about the video."""
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return dict(processor(text=prompt, videos=[list(frames)], return_tensors="pt"))


@torch.inference_mode()
def kept_by_method(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, list[int]], list[int]]:
    """The kept indices of every method for videos alone, and of the common ones; the grid of the tokens."""
    for_videos = [info.name for info in available_methods() if info.modalities == ("video",)]
    kept, grid = {}, []
    for name in ("divprune", "random", "uniform", *for_videos):
        with prune(model, name, keep_ratio=KEEP_RATIO) as pruning:
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
        item = pruning.last.items[0]
        kept[name], grid = item.kept_indices.tolist(), list(item.layout.grid)
    return kept, grid


def side_by_side(frames: tuple[Image.Image, ...]) -> str:
    """All frames in a row, scaled down, as a PNG in base64."""
    whole = Image.new("RGB", (FRAME_SIZE * len(frames), FRAME_SIZE))
    for place, frame in enumerate(frames):
        whole.paste(frame.resize((FRAME_SIZE, FRAME_SIZE)), (place * FRAME_SIZE, 0))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    checkpoint = checkpoint_path("embedded-video")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    frames = generated_video(SEED, "test").frames
    kept, grid = kept_by_method(model, inputs_of(AutoProcessor.from_pretrained(checkpoint), frames))
    config = {"model": "embedded-video", "split": "test", "question": QUESTION, "keep_ratio": KEEP_RATIO}
    row = {"case": "sample", "video": SEED, "grid": grid, "kept_indices": kept}
    row["frames_png_base64"] = side_by_side(frames)
    print(Record("samples-video", config, [row]).save(arguments.output))


if __name__ == "__main__":
    main()
