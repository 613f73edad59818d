"""How far greedy picks are from the best possible, and whether a larger max-min distance buys accuracy.

`python -m benchmarks.greedy` writes results/greedy.json: toy scenes, answered by the embedded model. About 10 minutes
on one thread; an interrupted run keeps its answers and goes on.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import certificate, get_method
from divprune.efficiency.shapes import model_shape
from divprune.embedded import KINDS, checkpoint_path, scene
from divprune.evaluation.resampling import NUM_RESAMPLES
from divprune.evaluation.scenes.bench import answer_kinds
from divprune.evaluation.scenes.cases import Case, suite_cases
from divprune.evaluation.scenes.suite import Suite, notice
from divprune.jsonl_log import JsonlLog
from divprune.methods import ItemContext
from divprune.records import Record, provenance, quantiles

NAME = "greedy"
GREEDY = "divprune"
METHODS = (GREEDY, "divprune:refine=true", "uniform", "random")
KEEP_RATIOS = (0.25, 0.098, 0.05)


@torch.inference_mode()
def visual_tokens(model: Any, processor: Any, seed: int) -> torch.Tensor:
    pixels = processor.image_processor([scene(seed, "test").image], return_tensors="pt")["pixel_values"]
    return model.base_model.get_image_features(pixels, return_dict=True).pooler_output[0]


def distances(tokens: Sequence[torch.Tensor], case: Case) -> dict[str, Any]:
    """The max-min distances of a method's picks, and how much of the best possible they are at least."""
    method, given = get_method(case.name), []
    for place, each in enumerate(tqdm(tokens, desc=case.key)):
        picks = method.select(each, case.num_keep, ItemContext(grid=(1, 16, 16), seed=place))
        given.append(certificate(picks, each))
    shares = [100 * one.share_of_optimum for one in given]
    return {
        **quantiles([one.max_min_distance for one in given], "max_min_", "distance"),
        **quantiles([one.bound for one in given], "bound_", "distance"),
        **quantiles(shares, "share_of_optimum_", "percent"),
        "arguments": dict(Counter(one.argument for one in given)),
    }


def right_share(suite: Suite, case: Case) -> np.ndarray:
    """Right answers to the short questions about each scene, in percent."""
    marks: dict[int, list[bool]] = {}
    for one in suite.answered(case):
        if one.question.kind in answer_kinds(KINDS):
            marks.setdefault(one.place, []).append(one.is_right)
    return np.array([100 * fmean(marks[place]) for place in range(suite.num_scenes)])


def beyond_greedy(suite: Suite, case: Case, greedy: Case) -> dict[str, float]:
    """Percent of right answers more than greedy picks give, scene by scene, with a bootstrap interval."""
    difference = right_share(suite, case) - right_share(suite, greedy)
    draws = np.random.default_rng(0).integers(len(difference), size=(NUM_RESAMPLES, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), (0.025, 0.975))
    names = ("beyond_greedy_percent", "beyond_greedy_low_percent", "beyond_greedy_high_percent")
    return dict(zip(names, map(float, (difference.mean(), low, high)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    origin, started = provenance(), time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    log = JsonlLog(arguments.output, NAME, {"revision": origin["git_revision"], "versions": origin["versions"]})
    suite = Suite(model, processor, arguments.scenes, log)
    cases = suite_cases(METHODS, model_shape(model.config), suite.workload, KEEP_RATIOS, ["tokens"])[2:]
    with tqdm(total=suite.num_units * len(cases), desc="answering") as progress:
        rows = suite.run(cases, lambda: progress.update() and None, with_cider=False)
    tokens = [visual_tokens(model, processor, seed) for seed in range(arguments.scenes)]
    for case, row in zip(cases, rows, strict=True):
        greedy = next(other for other in cases if other.name == GREEDY and other.keep_ratio == case.keep_ratio)
        row |= distances(tokens, case) | beyond_greedy(suite, case, greedy)
    config = {
        "notice": notice(),
        "model": "embedded",
        "split": "test",
        "num_scenes": arguments.scenes,
        "num_resamples": NUM_RESAMPLES,
        "duration_seconds": round(time.perf_counter() - started, 1),
    }
    print(Record(NAME, config, rows, origin | {"machine": provenance()["machine"]}).save(arguments.output))
    log.delete()


if __name__ == "__main__":
    main()
