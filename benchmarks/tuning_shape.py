"""What `divprune tune` costs and shows on a checkpoint of the 7B shape: `python -m benchmarks.tuning_shape`.

Writes results/tuning-llava-1.5-7b.json. The checkpoint has random weights: what is retained means nothing, what it
costs does. It takes 14 GB of disk and of memory, and a quarter of an hour on two quiet cores.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoProcessor

from benchmarks.tuning import METHODS, write_questions
from divprune.efficiency.foreign_load import BUSY_CORES, ForeignLoad
from divprune.efficiency.random_models import random_model
from divprune.efficiency.reference_models import architecture_config
from divprune.embedded import checkpoint_path
from divprune.experiments import TuneOptions, tune
from divprune.progress import SILENT
from divprune.records import Record, provenance

SHAPE = "llava-1.5-7b"


def write_checkpoint(folder: Path, num_layers: int | None) -> None:
    """Write a checkpoint of the shape, with random weights in bfloat16 and the embedded model's few words."""
    processor = AutoProcessor.from_pretrained(checkpoint_path())
    config = architecture_config(SHAPE, num_layers)
    config.image_token_index = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    vision = config.vision_config
    images = processor.image_processor
    images.size = {"shortest_edge": vision.image_size}
    images.crop_size = {"height": vision.image_size, "width": vision.image_size}
    processor.patch_size = vision.patch_size
    processor.save_pretrained(folder)
    model = random_model(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--target-tokens", type=float, default=58, help="of 576")
    parser.add_argument("--max-new-tokens", type=int, default=4)
    parser.add_argument("--layers", type=int, help="a shallower model, to try the benchmark")
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config = {name: value for name, value in vars(arguments).items() if name != "output"}
    origin = provenance()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "model", arguments.layers)
        (folder / "asked").mkdir()
        options = TuneOptions(
            write_questions(folder / "asked", range(arguments.questions), 1),
            str(folder / "model"),
            folder / "tuned.json",
            methods=METHODS,
            keep_ratios=(0.05, 0.1, 0.25),
            target_tokens=arguments.target_tokens,
            max_new_tokens=arguments.max_new_tokens,
            device="cpu",
        )
        started, others = time.perf_counter(), ForeignLoad()
        found = tune(options, SILENT)
        seconds, foreign_cores = time.perf_counter() - started, others.cores()
    if found is None:
        raise SystemExit("run this in one process")
    config |= {"seconds": seconds, "num_threads": torch.get_num_threads(), "dtype": "bfloat16"}
    config |= {"foreign_cores": [foreign_cores], "busy_rounds": int((foreign_cores or 0) > BUSY_CORES)}
    config |= {name: found.evidence[name] for name in ("num_forwards", "num_encoder_passes")}
    print(Record(f"tuning-{SHAPE}", config, list(found.rows), origin).save(arguments.output))


if __name__ == "__main__":
    main()
