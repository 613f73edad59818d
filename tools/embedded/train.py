"""Train the embedded model from nothing: `python -m tools.embedded.train --output DIR`.

Call it again with the same arguments after an interruption: it goes on from the last checkpoint. The finished model
lies in DIR/checkpoint, in the layout of any hub checkpoint.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from divprune.outputs import write_whole
from tools.embedded.language_stage import LanguageStage
from tools.embedded.loop import Schedule, run_stage
from tools.embedded.model import build, configuration, shrink_residual_stream
from tools.embedded.processing import build_processor
from tools.embedded.tower_stage import TowerStage


def export(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write model (as float16) and processor so that the Auto classes load them (as float32)."""
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.generation_config.update(do_sample=False, max_new_tokens=48)
    model.save_pretrained(folder, state_dict=halves)
    # Written for the owner alone, but meant to be packaged.
    (folder / "model.safetensors").chmod(0o644)
    processor.save_pretrained(folder)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    write_whole(config_file, json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Run the three stages and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints, log and the final model")
    parser.add_argument("--tower-steps", type=int, default=3000, help="stage 1: the tower on dense labels")
    parser.add_argument("--language-steps", type=int, default=2400, help="stage 2: language model, frozen tower")
    parser.add_argument("--whole-steps", type=int, default=0, help="stage 3: everything at a low rate")
    parser.add_argument("--width", type=int, default=192, help="of tower and language model, a multiple of 64")
    parser.add_argument("--tower-batch", type=int, default=32, help="scenes a step in stage 1")
    parser.add_argument("--language-batch", type=int, default=16, help="scenes a step in stages 2 and 3")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    model = build(configuration(arguments.width), arguments.seed)
    tower = TowerStage(model, arguments.tower_batch)
    run_stage(tower, Schedule(arguments.tower_steps), arguments.output)
    shrink_residual_stream(model)
    run_stage(LanguageStage(model, arguments.language_batch), Schedule(arguments.language_steps), arguments.output)
    if arguments.whole_steps:
        low = Schedule(arguments.whole_steps, matrix_rate=6e-3, other_rate=6e-4, decay_share=0.9)
        run_stage(LanguageStage(model, arguments.language_batch, heads=tower.heads), low, arguments.output)
    export(model, build_processor(), arguments.output / "checkpoint")


if __name__ == "__main__":
    main()
