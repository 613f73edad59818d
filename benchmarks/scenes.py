"""Accuracy of the embedded model on held-out scenes, under every pruning setting: `python -m benchmarks.scenes`.

Writes results/scenes.json. About 20 minutes on one core.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.budget import budget
from divprune.embedded import KINDS, checkpoint_path
from divprune.evaluation.scenes.baselines import UNPRUNED, WITHHELD
from divprune.evaluation.scenes.bench import IMAGE_BENCH
from divprune.evaluation.scenes.cases import Case
from divprune.evaluation.scenes.scores import Answered
from divprune.evaluation.scenes.suite import Suite
from divprune.records import Record, provenance

SEEDS = (0, 1, 2)
METHODS = ("divprune", *(f"random:seed={seed}" for seed in SEEDS), "uniform")


def cases(num_visual_tokens: int) -> list[Case]:
    """Every combination, led by the unpruned row and the one without the image."""
    rows = [Case(UNPRUNED, keep_ratio=1.0), Case(WITHHELD, keep_ratio=0.0)]
    for positions in ("compact", "original"):
        for keep_ratio in IMAGE_BENCH.keep_ratios:
            num_keep = budget(num_visual_tokens, keep_ratio=keep_ratio)
            rows += [Case(name, "tokens", keep_ratio, num_keep, positions=positions) for name in METHODS]
    return rows


def as_row(case: Case, scored: dict[str, Any], answered: list[Answered]) -> dict[str, Any]:
    percents = {f"{kind}_percent": scored[f"{kind}_percent"] for kind in (*KINDS, "mean")}
    return {
        "method": case.name.partition(":")[0],
        "positions": case.positions,
        "seed": getattr(case.method, "seed", None),
        "keep_ratio": case.keep_ratio,
        "num_kept": round(scored["num_kept"]),
        "num_questions": dict(Counter(one.question.kind for one in answered)),
        **percents,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    origin, started = provenance(), time.perf_counter()
    suite = Suite(model, processor, arguments.scenes)
    rows = cases(suite.workload.num_visual_tokens)
    with tqdm(total=suite.num_units * len(rows), desc="answering") as progress:
        scored = suite.run(rows, lambda: progress.update() and None, with_cider=False)
    table = [as_row(case, row, suite.answered(case)) for case, row in zip(rows, scored, strict=True)]
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
