"""What pruning costs and saves in a whole call: `python -m benchmarks.pipeline`.

Writes results/pipeline.json. A model of LLaVA-1.5-7B's width and fewer decoder layers, random weights, bfloat16. Beside
the pruned call stands the ideal one: the same model, given a prompt of the same short length as plain text. A pruned
prefill should take as long as ideal + encoder + selection. Five minutes on two cores.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from divprune import prune, select
from divprune.budget import budget
from divprune.efficiency import (
    architecture_config,
    get_architecture,
    random_inputs,
    random_model,
    seconds_of,
    time_generation,
)
from divprune.efficiency.foreign_load import quiet_rounds
from divprune.efficiency.measure import GenerationTiming
from divprune.records import Record, provenance, quantiles

ARCHITECTURE = "llava-1.5-7b"
KEEP_RATIO = 0.098
NUM_TEXT_TOKENS = 48
NUM_NEW_TOKENS = 9
WARM_UP = 1

Samples = dict[str, dict[str, list[float]]]


class Pipeline:
    """The calls that are compared, each of which returns its times by name."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._inputs = random_inputs(model, get_architecture(ARCHITECTURE), NUM_TEXT_TOKENS)
        with torch.no_grad():
            self._visual_tokens = self._encode()[0]
        self.num_visual_tokens = len(self._visual_tokens)
        self.num_keep = budget(self.num_visual_tokens, keep_ratio=KEEP_RATIO)
        self._ideal = self._plain_text(NUM_TEXT_TOKENS + self.num_keep)

    def calls(self) -> dict[str, Callable[[], dict[str, float]]]:
        # What is compared most closely stands side by side.
        return {
            "unpruned": lambda: self._generate(self._inputs),
            "random": lambda: self._pruned("random"),
            "divprune": lambda: self._pruned("divprune"),
            "encoder": lambda: {"encoder": self._seconds(self._encode)},
            "selection": lambda: {"selection": self._seconds(self._select)},
            "ideal": lambda: self._generate(self._ideal),
        }

    def _generate(self, inputs: dict[str, Any]) -> dict[str, float]:
        return named(time_generation(self._model, inputs, NUM_NEW_TOKENS))

    def _pruned(self, method: str) -> dict[str, float]:
        with prune(self._model, method, keep_ratio=KEEP_RATIO) as pruning:
            times = self._generate(self._inputs)
        report = pruning.last
        assert report is not None
        return times | {"encoder": report.encoding_seconds, "selection": report.selection_seconds}

    def _seconds(self, function: Callable[[], object]) -> float:
        with torch.no_grad():
            return seconds_of(function, self._model.device)

    def _encode(self) -> Any:
        encoder: Any = self._model.base_model
        return encoder.get_image_features(pixel_values=self._inputs["pixel_values"], return_dict=True).pooler_output

    def _select(self) -> object:
        return select(self._visual_tokens, num_keep=self.num_keep)

    def _plain_text(self, length: int) -> dict[str, Any]:
        ids = torch.randint(3, 30000, (1, length), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            embeddings = self._model.get_input_embeddings()(ids)
        return {"inputs_embeds": embeddings, "attention_mask": torch.ones_like(ids)}


def named(timing: GenerationTiming) -> dict[str, float]:
    """`prefill` is the whole way to the first token, `language_model` the decoder's pass in it."""
    return {
        "prefill": timing.ttft_seconds,
        "language_model": timing.prefill_seconds,
        "decode_per_token": timing.decode_seconds_per_token,
    }


def measure(
    calls: dict[str, Callable[[], dict[str, float]]], repeats: int, max_seconds: float
) -> tuple[Samples, dict[str, Any]]:
    """Every call in turn, round by round; no round starts after `max_seconds`. And beside which load they ran."""
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    rounds = quiet_rounds(lambda: {name: call() for name, call in calls.items()}, repeats, max_seconds=max_seconds)
    samples: Samples = {name: {} for name in calls}
    for times in rounds.results:
        for name, quantities in times.items():
            for quantity, seconds in quantities.items():
                samples[name].setdefault(quantity, []).append(seconds)
    return samples, rounds.as_config()


def rows_of(samples: Samples) -> list[dict[str, Any]]:
    rows = []
    for name, quantities in samples.items():
        row: dict[str, Any] = {"case": name}
        for quantity, seconds in quantities.items():
            row |= quantiles(seconds, f"{quantity}_")
        if name in ("divprune", "random"):
            row |= quantiles(over_ideal(samples, name), "prefill_over_ideal_", "ratio")
            row |= quantiles(overhead(samples[name]), "overhead_")
        if name == "divprune":
            row |= quantiles(speedups(samples), "prefill_speedup_", "ratio")
        rows.append(row)
    return rows


def over_ideal(samples: Samples, name: str) -> list[float]:
    """Round by round: pruned prefill / (ideal prefill + encoder + selection); random's selection is its own."""
    selection = samples["selection" if name == "divprune" else name]["selection"]
    parts = (samples["ideal"]["prefill"], samples["encoder"]["encoder"], selection)
    return [pruned / sum(ideal) for pruned, *ideal in zip(samples[name]["prefill"], *parts, strict=True)]


def overhead(times: dict[str, list[float]]) -> list[float]:
    """Round by round: what of a pruned prefill is neither encoder nor selection nor the decoder's pass."""
    parts = zip(times["prefill"], times["encoder"], times["selection"], times["language_model"], strict=True)
    return [prefill - sum(known) for prefill, *known in parts]


def speedups(samples: Samples) -> list[float]:
    """Round by round: unpruned prefill / pruned prefill."""
    pairs = zip(samples["unpruned"]["prefill"], samples["divprune"]["prefill"], strict=True)
    return [unpruned / pruned for unpruned, pruned in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="decoder layers; the real model has 32")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--max-seconds", type=float, default=240, help="no new round starts after this")
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    origin = provenance()
    pipeline = Pipeline(random_model(architecture_config(ARCHITECTURE, arguments.layers)))
    samples, beside = measure(pipeline.calls(), arguments.repeats, arguments.max_seconds)
    config = {
        "architecture": ARCHITECTURE,
        "num_layers": arguments.layers,
        "dtype": "bfloat16",
        "device": "cpu",
        "keep_ratio": KEEP_RATIO,
        "num_visual_tokens": pipeline.num_visual_tokens,
        "num_kept": pipeline.num_keep,
        "num_text_tokens": NUM_TEXT_TOKENS,
        "num_new_tokens": NUM_NEW_TOKENS,
        "warm_up": WARM_UP,
        "repeats": len(samples["unpruned"]["prefill"]),
        **beside,
    }
    rows = rows_of(samples)
    for row in rows:
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
    print(Record("pipeline", config, rows, origin).save(arguments.output))


if __name__ == "__main__":
    main()
