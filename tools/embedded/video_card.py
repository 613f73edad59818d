"""The video model's card, written from measured files only.

`python -m tools.embedded.video_card --run DIR --checkpoint DIR`: the run's log and the checkpoint's accuracy.json
become its README.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from divprune.embedded import checkpoint_path
from divprune.embedded.vocabulary import VIDEO_WORDS
from divprune.outputs import write_whole
from tools.embedded.video_model import FRAME_TOKENS, IMAGE_TOKENS, VIDEO_TOKENS

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: video-text-to-text
---

# The embedded video model of divprune

A LLaVA-NeXT-Video of {parameters:.1f} million parameters that reads 8 frames: the embedded model of divprune
(`checkpoint`, a LLaVA for images), its language model trained further on generated videos mixed with images. It exists
so that pruning methods that compare frames can be tried, tested and measured in minutes on any machine, along the same
path that a 7B model takes (`AutoProcessor`, `AutoModelForImageTextToText`, `generate`). Its video processor needs
`pip install "divprune[video]"`.

- Vision tower: that of the embedded model, unchanged. The features of each 2 x 2 patches of a frame are averaged before
  the projector: {frame_tokens} tokens a frame, {video_tokens} a video. Nothing but its position tells a token's frame.
- An image is read as LLaVA-NeXT reads one of a single tile: twice, with newline tokens, {image_tokens} tokens.
- Projector and language model: those of the embedded model, trained further; {vocabulary} words.

## Accuracy

{accuracy}

## Data

Videos of 8 frames of 128 px on a static background: 2 to 5 shapes of different colours, of which one or two stay, up to
two move (4 to 6 px a frame, left, right, up or down) and one to three appear after the first frame, each in a frame of
its own; about half of these go again. Existence and count are asked of the whole video; motion of an object that
moves: one frame alone tells 44 % of the answers; order, which colour appears first or last, is asked where more than
one appears; colour is asked of a shape that stays all the time, as a control that any frame answers. The split follows
from a checksum of the objects. Everything is drawn from seeds: `divprune.embedded.videos`,
`divprune.embedded.video_questions`.

## Recipe

`python -m tools.embedded.train_video --output DIR {command}`

{log_rows}

Scores are percent of validation questions, of whole videos, and of images (the last two columns).

- **Objects**: 16 videos and 2 images a step, the questions about each packed behind it, loss on the answers. Of a
  video's tokens 144 are read, at their own positions: those that show objects, the others at random. That is several
  times as fast, and it is a training with tokens left out: read the results of pruning with this in mind.
- **Whole** (where listed): 8 whole videos and 4 images a step.

The answers alone teach time slowly. So at each token that shows an object, read-outs of the language model's layers
were trained to tell the frame, the colour, when the object appeared and as how manieth, where it moves, and how many of
its shape and in all there were so far; they are thrown away. And one attention head of the third layer was trained to
look from an object's tokens to those of the frame in which it appeared. Muon for the matrices, AdamW for the rest;
warm-up, plateau, linear decay; bfloat16 autocast; one CPU thread, shared with other work.

{deviations}

## Limits

Toy videos only. The second stage has not been run to its end: motion and order are hardly better than a guess from one
frame, and images are answered worse than by the embedded model. Take the weights as a start, not as a judge.

Counting and order were trained at the tokens, and most of the steps left background tokens out, so both may survive
pruning better here than in models that were trained on answers and whole videos. Numbers measured on this model show
how a pruning method behaves on a small trained model, no more.

Licence: Apache-2.0.
"""
_ACCURACY = """{num_videos} test videos and {num_images} test images, unpruned, greedy, exact match. Measured by
`python -m tools.embedded.evaluate --model FOLDER --videos {num_videos} --scenes {num_images} --json FILE`; the numbers
are `accuracy.json` beside this card.

| question about a video | right | asked |
|---|---|---|
{video_rows}

| question about an image | right | asked | the embedded model |
|---|---|---|---|
{image_rows}"""
_NOT_MEASURED = "Not measured on test videos yet. The recipe's table has the scores on validation videos and images."
_DEVIATIONS = (
    "The recipe was found while these weights were trained, so they differ from what the command gives in this:\n"
    "before the steps of the table the model saw 300 steps of whole videos, in part with objects that moved 5 to 8 px\n"
    "a frame, and 100 of the first stage without the loss on attention. The command has not been run from beginning\n"
    "to end on one setting."
)
_STAGES = {"video-objects": "Objects", "video": "Whole"}
_OPTIONS = {"video-objects": "object-steps", "video": "steps"}
_SHOWN = ("video_existence", "video_count", "video_color", "video_motion", "video_order", "count", "position")


def write_card(run: Path, checkpoint: Path) -> str:
    """The card's text, from the training log in `run` and, if it is there, accuracy.json in `checkpoint`."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return _CARD.format(
        parameters=(checkpoint / "model.safetensors").stat().st_size / 2 / 1e6,
        frame_tokens=FRAME_TOKENS,
        video_tokens=VIDEO_TOKENS,
        image_tokens=IMAGE_TOKENS,
        vocabulary=len(VIDEO_WORDS),
        accuracy=_accuracy(checkpoint / "accuracy.json"),
        command=" ".join(
            f"--{_OPTIONS[name]} {step}" for name, step in {line["stage"]: line["step"] for line in lines}.items()
        ),
        log_rows=_log_table(lines),
        deviations=_DEVIATIONS,
    )


def _accuracy(file: Path) -> str:
    """The measured numbers, or that there are none."""
    if not file.is_file():
        return _NOT_MEASURED
    measured = json.loads(file.read_text())
    before = json.loads((checkpoint_path() / "accuracy.json").read_text())["kinds"]
    return _ACCURACY.format(
        num_videos=measured["videos"]["num_scenes"],
        num_images=measured["images"]["num_scenes"],
        video_rows="\n".join(_row(kind, result) for kind, result in measured["videos"]["kinds"].items()),
        image_rows="\n".join(
            f"{_row(kind, result)} {100 * before[kind]['accuracy']:.1f} % |"
            for kind, result in measured["images"]["kinds"].items()
        ),
    )


def _row(kind: str, result: dict[str, Any]) -> str:
    return f"| {kind} | {100 * result['accuracy']:.1f} % | {result['num_questions']} |"


def _log_table(lines: list[dict[str, Any]]) -> str:
    """Steps, time, loss and validation scores in percent of every check."""
    rows = [f"| stage | steps | minutes | loss | {' | '.join(name.replace('_', ' ') for name in _SHOWN)} |"]
    rows.append("|---" * (4 + len(_SHOWN)) + "|")
    for line in lines:
        scores = " | ".join(f"{100 * line[name]:.0f}" for name in _SHOWN)
        start = f"| {_STAGES[line['stage']]} | {line['step']} | {line['seconds'] / 60:.0f} | {line['loss']:.2f} |"
        rows.append(f"{start} {scores} |")
    return "\n".join(rows)


def main() -> None:
    """Write README.md into the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the training's output folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the saved model with its accuracy.json")
    arguments = parser.parse_args()
    write_whole(arguments.checkpoint / "README.md", write_card(arguments.run, arguments.checkpoint))


if __name__ == "__main__":
    main()
