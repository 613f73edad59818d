"""What each method keeps of many toy scenes, and what a call with it takes: `python -m benchmarks.samples`.

Writes results/samples.json, from which the figures about tokens are drawn: the max-min distance of what is kept, scene
by scene, and the time to the first token, all methods in turns; of the first scenes also the pictures and the kept
tokens. About five minutes on one thread.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.embedded import checkpoint_path, scene
from divprune.evaluation.runs import UNPRUNED
from divprune.evaluation.scenes.cases import every_method
from divprune.evaluation.scenes.suite import notice
from divprune.experiments.token_samples import MethodSamples, Shown, token_rows
from divprune.methods import get_method
from divprune.records import Record, provenance

KEEP_RATIO = 0.098
QUESTION = "How many objects are there?"


def asked(name: str) -> MethodSamples:
    """A method at the paper's share, if it is told one."""
    has_own = name == UNPRUNED or count_of(name) == "schedule"
    return MethodSamples(name, name, None if has_own else KEEP_RATIO)


def count_of(name: str) -> str:
    """How a method finds its number of tokens; one that needs a calibration is a schedule."""
    try:
        return get_method(name).count
    except ValueError:
        return "schedule"


def pictures(model: Any, processor: Any, num_scenes: int) -> Iterator[Shown]:
    """The first test scenes."""
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    for place in range(num_scenes):
        image = scene(place, "test").image
        inputs = dict(processor(images=image, text=prompt, return_tensors="pt"))
        with torch.inference_mode():
            tokens = model.base_model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output[0]
        side = round(len(tokens) ** 0.5)
        yield Shown(image, inputs, tokens, (side, side))


def measured(num_scenes: int) -> Record:
    """All registered methods over the first test scenes."""
    origin, started = provenance(), time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    methods = [asked(name) for name in (UNPRUNED, *every_method())]
    shown = tqdm(pictures(model, processor, num_scenes), desc="toy scenes", total=num_scenes)
    rows = token_rows(model, shown, methods)
    config = {
        "notice": notice(),
        "model": "embedded",
        "split": "test",
        "num_scenes": num_scenes,
        "question": QUESTION,
        "keep_ratio": KEEP_RATIO,
        "num_visual_tokens": rows[-1]["grid"][0] * rows[-1]["grid"][1],
        "warm_up": 1,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "duration_seconds": round(time.perf_counter() - started, 1),
    }
    return Record("samples", config, rows, origin | {"machine": provenance()["machine"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    print(measured(arguments.scenes).save(arguments.output))


if __name__ == "__main__":
    main()
