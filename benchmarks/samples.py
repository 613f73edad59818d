"""What each method keeps of many toy scenes, and what a call with it takes: `python -m benchmarks.samples`.

Writes results/samples.json, from which the figures about tokens are drawn: the max-min distance of what is kept, scene
by scene, and the time to the first token, all methods in turns; of the first scenes also the pictures and the kept
tokens. About five minutes on one thread.
"""

import argparse
import base64
import io
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune, select
from divprune.efficiency.timing import time_generation
from divprune.errors import DivpruneError
from divprune.evaluation.suite import NOTICE
from divprune.evaluation.suite_cases import UNPRUNED, every_method
from divprune.huggingface import ItemReport
from divprune.methods import MergingMethod, Method, get_method
from divprune.records import Record, provenance, quantiles
from divprune.tiny import checkpoint_path, scene

KEEP_RATIO = 0.098
NUM_SAMPLES = 2
QUESTION = "How many objects are there?"


@dataclass
class Measured:
    """One method over all scenes.

    Attributes:
        name: the method as `get_method` reads it, or "unpruned".
        ttft_seconds: from pixels to the first token, one a scene.
        max_min_distances: of what is kept, one a scene; empty where fewer than two tokens are kept.
        kept_indices: of the first scenes.
        num_kept: of each scene.
        refusal: why it does not run on this model; None if it does.
    """

    name: str
    ttft_seconds: list[float] = field(default_factory=list)
    max_min_distances: list[float] = field(default_factory=list)
    kept_indices: list[list[int]] = field(default_factory=list)
    num_kept: list[int] = field(default_factory=list)
    refusal: str | None = None

    def measure(self, model: Any, inputs: dict[str, Tensor], tokens: Tensor, place: int) -> None:
        """Answer about one scene, number `place`."""
        if self.refusal is not None:
            return
        if self.name == UNPRUNED:
            self.ttft_seconds.append(time_generation(model, inputs, 1).ttft_seconds)
            return
        try:
            method = drawn(get_method(self.name), place)
            keep_ratio = None if method.count == "schedule" else KEEP_RATIO
            with prune(model, method, keep_ratio=keep_ratio) as pruning:
                self.ttft_seconds.append(time_generation(model, inputs, 1).ttft_seconds)
        except (DivpruneError, ValueError, NotImplementedError) as error:
            self.refusal = " ".join(str(error).split())
            return
        assert pruning.last is not None
        self._note(pruning.last.items[0], method, tokens, place)

    def _note(self, item: ItemReport, method: Method, tokens: Tensor, place: int) -> None:
        self.num_kept.append(item.num_kept)
        if place < NUM_SAMPLES:
            self.kept_indices.append(item.kept_indices.tolist())
        if item.num_kept > 1:
            # Also where tokens are dropped inside the language model, the distance is that of the visual tokens.
            kept = item.kept_tokens if isinstance(method, MergingMethod) else tokens[item.kept_indices]
            distance = select(kept, num_keep=len(kept)).max_min_distance
            self.max_min_distances.append(float(f"{distance:.5g}"))

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"case": "method", "method": self.name, "refusal": self.refusal}
        if self.refusal is not None:
            return row
        row["num_kept"] = sum(self.num_kept) / len(self.num_kept) if self.num_kept else None
        return row | quantiles(self.ttft_seconds, "ttft_") | {"max_min_distances": self.max_min_distances}


def drawn(method: Method, place: int) -> Method:
    """The method, whose random draws, if it makes any, are those of scene number `place`."""
    has_seed = "seed" in {each.name for each in fields(method)}
    return replace(method, seed=place) if has_seed else method


def sample(place: int, tokens: Tensor, methods: list[Measured]) -> dict[str, Any]:
    """A scene's picture, which tokens of it each method keeps, and of the first scene the tokens."""
    side = round(len(tokens) ** 0.5)
    picture = io.BytesIO()
    scene(place, "test").image.save(picture, "PNG", optimize=True)
    row: dict[str, Any] = {"case": "sample", "scene": place, "grid": [side, side]}
    row["kept_indices"] = {one.name: one.kept_indices[place] for one in methods if one.kept_indices}
    row["picture_png_base64"] = base64.b64encode(picture.getvalue()).decode()
    if place == 0:
        row["tokens_float16_base64"] = base64.b64encode(tokens.half().numpy().tobytes()).decode()
    return row


def measured(num_scenes: int) -> Record:
    """All registered methods over the first test scenes."""
    origin, started = provenance(), time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    methods = [Measured(name) for name in (UNPRUNED, *every_method())]
    samples = []
    for place in tqdm(range(num_scenes), desc="toy scenes"):
        inputs = dict(processor(images=scene(place, "test").image, text=prompt, return_tensors="pt"))
        with torch.inference_mode():
            tokens = model.base_model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output[0]
        if place == 0:  # a round to warm up
            for name in (UNPRUNED, *every_method()):
                Measured(name).measure(model, inputs, tokens, place)
        for one in methods:
            one.measure(model, inputs, tokens, place)
        if place < NUM_SAMPLES:
            samples.append(sample(place, tokens, methods))
    config = {
        "notice": NOTICE,
        "model": "embedded",
        "split": "test",
        "num_scenes": num_scenes,
        "question": QUESTION,
        "keep_ratio": KEEP_RATIO,
        "num_visual_tokens": len(tokens),
        "warm_up": 1,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "duration_seconds": round(time.perf_counter() - started, 1),
    }
    rows = [one.row() for one in methods] + samples
    return Record("samples", config, rows, origin | {"machine": provenance()["machine"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    print(measured(arguments.scenes).save(arguments.output))


if __name__ == "__main__":
    main()
