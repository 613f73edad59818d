"""Train the embedded video model from the embedded model: `python -m tools.embedded.train_video --output DIR`.

Call it again with the same arguments after an interruption: it goes on from the last checkpoint. The finished model
lies in DIR/checkpoint, in the layout of any hub checkpoint.
"""

import argparse
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from divprune.embedded import checkpoint_path
from tools.embedded.loop import Schedule, run_stage
from tools.embedded.processing import build_video_processor
from tools.embedded.train import export
from tools.embedded.video_model import build_video, video_configuration
from tools.embedded.video_stage import VideoStage


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoint, log and the final model")
    parser.add_argument("--object-steps", type=int, default=2000, help="stage 1: videos without most of the background")
    parser.add_argument("--steps", type=int, default=200, help="stage 2: whole videos")
    parser.add_argument("--kept-tokens", type=int, default=80, help="of a video, in stage 1")
    parser.add_argument("--batch-size", type=int, default=8, help="videos a step")
    parser.add_argument("--pool-size", type=int, default=600, help="videos that take turns")
    parser.add_argument("--check-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--matrix-rate", type=float, default=0.015, help="learning rate of the layers' matrices")
    parser.add_argument("--seed", type=int, default=0, help="of the new words' weights")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    image_model = LlavaForConditionalGeneration.from_pretrained(checkpoint_path())
    model = build_video(image_model, video_configuration(), arguments.seed)
    rates = {"matrix_rate": arguments.matrix_rate, "other_rate": arguments.matrix_rate / 10}
    shared = {"warmup_steps": 50, "check_every": arguments.check_every, **rates}
    stage = VideoStage(model, arguments.batch_size, arguments.pool_size, arguments.kept_tokens)
    run_stage(stage, Schedule(arguments.object_steps, decay_share=0.1, **shared), arguments.output)
    whole = VideoStage(model, arguments.batch_size, arguments.pool_size)
    whole.heads.load_state_dict(stage.heads.state_dict())
    whole.pool = stage.pool
    run_stage(whole, Schedule(arguments.steps, decay_share=0.6, **shared), arguments.output)
    export(model, build_video_processor(), arguments.output / "checkpoint")


if __name__ == "__main__":
    main()
