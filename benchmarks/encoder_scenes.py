"""What merging patches inside the vision encoder costs in accuracy: `python -m benchmarks.encoder_scenes`.

The embedded model answers about held-out scenes, its encoder merging r patches a block, once with all that is left and
once with a tenth of the image's tokens; beside them as many tokens of a whole encoder. Writes
results/encoder-scenes.json. Twenty minutes on one core.
"""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune.budget import budget
from divprune.embedded import checkpoint_path
from divprune.encoder_options import TomeEncoder
from divprune.evaluation.scenes.baselines import UNPRUNED, WITHHELD
from divprune.evaluation.scenes.cases import Case
from divprune.evaluation.scenes.suite import Suite
from divprune.records import Record, provenance

OPTIONS = (TomeEncoder(8), TomeEncoder(16), TomeEncoder(32), TomeEncoder(48), TomeEncoder(54, "decreasing"))
"""The encoder has four blocks that are read, and 256 patches: more can hardly be merged."""
NUM_BLOCKS = 4
KEEP_RATIO = 0.098


def cases(num_patches: int) -> list[Case]:
    """Every row, led by the unpruned one and the one without the image."""
    few = budget(num_patches, keep_ratio=KEEP_RATIO)
    rows = [Case(UNPRUNED), Case(WITHHELD), *(Case(name, num_keep=few) for name in ("divprune", "random"))]
    for option in OPTIONS:
        left = option.patches_left(num_patches, NUM_BLOCKS)[-1]
        rows += [Case("divprune", num_keep=count, encoder=option) for count in (left, few)]
        rows += [Case(name, num_keep=left) for name in ("divprune", "random")]
    return rows


def as_row(case: Case, scored: dict[str, Any], num_patches: int) -> dict[str, Any]:
    option = case.encoder
    left = num_patches if option is None else option.patches_left(num_patches, NUM_BLOCKS)[-1]
    scores = {name: value for name, value in scored.items() if name.startswith("mean_") and name.endswith("_percent")}
    return {
        "method": case.name, "encoder": None if option is None else str(option), "num_encoded": left,
        "num_kept": scored["num_kept"], **scores,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path()).eval()
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    origin = provenance()
    suite = Suite(model, processor, arguments.scenes)
    total = suite.workload.num_visual_tokens
    rows = cases(total)
    with tqdm(total=suite.num_units * len(rows), desc="answering") as progress:
        scored = suite.run(rows, lambda: progress.update() and None, with_cider=False)
    config = {
        "model": "embedded", "split": "test", "num_scenes": arguments.scenes, "num_visual_tokens": total,
        "dtype": str(model.dtype).removeprefix("torch."),
    }  # fmt: skip
    table = [as_row(case, row, total) for case, row in zip(rows, scored, strict=True)]
    print(Record("encoder-scenes", config, table, origin).save(arguments.output))


if __name__ == "__main__":
    main()
