"""Accuracy of the embedded model on held-out scenes, under every pruning setting: `python -m benchmarks.scenes`.

Writes results/scenes.json. About 20 minutes on one core.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.embedded import checkpoint_path
from divprune.evaluation.scenes.questions import evaluate_scenes, settings
from divprune.methods import DivPrune, RandomTokens, UniformGrid
from divprune.records import Record, provenance

KEEP_RATIOS = (0.5, 0.25, 0.098, 0.05)
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    rows = settings([DivPrune(), RandomTokens(), UniformGrid()], KEEP_RATIOS, ("compact", "original"), SEEDS)
    origin, started = provenance(), time.perf_counter()
    table = evaluate_scenes(model, processor, rows, arguments.scenes)
    config = {
        "model": "embedded",
        "split": "test",
        "num_scenes": arguments.scenes,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seeds": SEEDS,
        "duration_seconds": round(time.perf_counter() - started, 1),
        "num_threads": torch.get_num_threads(),
    }
    print(Record("scenes", config, table, origin).save(arguments.output))


if __name__ == "__main__":
    main()
