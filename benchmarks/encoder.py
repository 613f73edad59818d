"""Time to the first token with fewer patches in the vision encoder: `python -m benchmarks.encoder`.

The unpruned model, random tokens, DivPrune, and DivPrune behind an encoder option, all but the first with as many
tokens in the language model. LLaVA-1.5-7B's shape whole, shown smooth noise; Qwen2-VL-7B's at its width, with 4 of 28
decoder layers and 5 of 32 encoder layers, shown a part of a page of text. Random weights, and decoder layers that share
those of one, which takes the same time: one is far larger than the processor's caches.

Writes results/encoder-time-llava-1.5-7b.json and results/encoder-time-qwen2-vl-7b.json. A quarter of an hour on two
quiet cores, and 6 GB.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLImageProcessorPil

from benchmarks.pages import text_page
from divprune.config import PruningConfig
from divprune.efficiency.bench import UNPRUNED_VARIANT, Variant
from divprune.efficiency.random_models import random_inputs, random_model
from divprune.efficiency.reference_models import architecture_config, get_architecture
from divprune.efficiency.subject import BenchSubject, measure_variants
from divprune.encoder_options import EncoderOption, PixelDedup, TomeEncoder
from divprune.methods import DivPrune, RandomTokens
from divprune.records import Record, provenance

TEXT_TOKENS = 48


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        architecture: its name.
        num_layers: decoder layers.
        num_encoder_layers: None for all.
        options: encoder options that are compared.
        shows_page: whether it is shown a page of text instead of smooth noise.
        num_keep: visual tokens kept.
    """

    architecture: str
    num_layers: int
    num_encoder_layers: int | None
    options: tuple[EncoderOption, ...]
    shows_page: bool
    num_keep: int = 56

    def load(self, dtype: str) -> BenchSubject:
        """Build the model and its prompt."""
        config: Any = architecture_config(self.architecture, 1)
        if self.num_encoder_layers is not None:
            config.vision_config.depth = self.num_encoder_layers
        model = with_repeated_layer(random_model(config, dtype=getattr(torch, dtype)), self.num_layers)
        inputs = random_inputs(model, get_architecture(self.architecture), TEXT_TOKENS)
        if self.shows_page:
            side = int(inputs["image_grid_thw"][0, 1]) * config.vision_config.patch_size
            page = text_page(0).crop((100, 100, 100 + side, 100 + side))
            found = Qwen2VLImageProcessorPil()(page, return_tensors="pt")
            if not torch.equal(found["image_grid_thw"], inputs["image_grid_thw"]):
                raise ValueError(f"the page must become {inputs['image_grid_thw']}, got {found['image_grid_thw']}")
            inputs["pixel_values"] = found["pixel_values"].to(model.dtype)
        return BenchSubject(model, inputs)


MERGING = (TomeEncoder(8), TomeEncoder(16), TomeEncoder(16, "decreasing"), TomeEncoder(20, "decreasing"))
SUBJECTS = {
    "llava-1.5-7b": Subject("llava-1.5-7b", 32, None, MERGING, shows_page=False),
    "qwen2-vl-7b": Subject("qwen2-vl-7b", 4, 5, (PixelDedup(),), shows_page=True),
}


def variants(options: Sequence[EncoderOption], num_keep: int) -> list[Variant]:
    """The rows: unpruned, random, divprune, and divprune behind each encoder option."""
    methods = {"random": RandomTokens(), "divprune": DivPrune()}
    plain = [Variant(name, PruningConfig(method, num_keep=num_keep)) for name, method in methods.items()]
    behind = [
        Variant(f"divprune, {option}", PruningConfig(DivPrune(), num_keep=num_keep, encoder=option))
        for option in options
    ]
    return [UNPRUNED_VARIANT, *plain, *behind]


def with_repeated_layer(model: Any, num_layers: int) -> Any:
    """Give a model of one decoder layer `num_layers` of them, which share its weights."""
    layers = model.get_decoder().layers
    (first,) = layers
    weights = {id(parameter): parameter for parameter in first.parameters()}
    for index in range(1, num_layers):
        layer = copy.deepcopy(first, dict(weights))
        layer.self_attn.layer_idx = index
        layers.append(layer)
    text = model.config.get_text_config()
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1] * num_layers
    return model


def measured(name: str, load: Callable[[], BenchSubject], rows: list[Variant], repeats: int) -> Record:
    """Measure a model; returns the record."""
    origin = provenance()
    subject, measurements, table = measure_variants(load, rows, num_new_tokens=2, repeats=repeats, memory=False)
    vision: Any = subject.model.config.vision_config
    config = {
        "model": name, "weights": "random", "num_layers": subject.model.config.get_text_config().num_hidden_layers,
        "num_encoder_layers": getattr(vision, "depth", None) or vision.num_hidden_layers,
        "num_prompt_tokens": subject.inputs["input_ids"].shape[1], "warm_up": 1,
        "repeats": len(measurements[0].timings), "dtype": str(subject.model.dtype).removeprefix("torch."),
        "device": "cpu", **measurements[0].beside,
    }  # fmt: skip
    return Record(f"encoder-time-{name}", config, table, origin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32", help="bfloat16 where the processor multiplies it")
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    for name in arguments.only or SUBJECTS:
        subject = SUBJECTS[name]
        rows = variants(subject.options, subject.num_keep)
        record = measured(name, partial(subject.load, arguments.dtype), rows, arguments.repeats)
        print(record.save(arguments.output))


if __name__ == "__main__":
    main()
