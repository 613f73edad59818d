"""The video model's card, written from measured files only.

`python -m tools.embedded.video_card --run DIR --checkpoint DIR`: the run's log and the checkpoint's accuracy.json
become its README.md.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from divprune.embedded import VIDEO_KINDS, checkpoint_path
from divprune.embedded.vocabulary import VIDEO_WORDS
from divprune.evaluation.scenes.bench import VIDEO_BENCH
from divprune.outputs import write_whole
from tools.embedded.video_model import FRAME_TOKENS, VIDEO_TOKENS

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: video-text-to-text
---

# The embedded video model of divprune

A LLaVA-NeXT-Video of {parameters:.1f} million parameters that reads 8 frames: the embedded model of divprune
(`checkpoint`, a LLaVA for images), its projector and language model trained further on generated videos. It exists so
that pruning methods that compare frames can be tried, tested and measured in minutes on any machine, along the same
path that a 7B model takes (`AutoProcessor`, `AutoModelForImageTextToText`, `generate`). Its video processor needs
`pip install "divprune[video]"`.

- Vision tower: that of the embedded model, unchanged. The features of each 2 x 2 patches of a frame are averaged before
  the projector: {frame_tokens} tokens a frame, {video_tokens} a video. Nothing but its position tells a token's frame.
- Projector and language model: those of the embedded model, trained further; {vocabulary} words.
- Images: not trained. What nobody asks of videos (shape, position, captions) is forgotten, and counting has suffered;
  for images there is the embedded model.

## Accuracy

{accuracy}

## Data

Videos of 8 frames of 128 px on a static background: 3 to 5 shapes of different colours, each of which comes in a frame
of its own and goes after 2 to 4 frames; about half of them move meanwhile, 8 to 10 px a frame, left, right, up or down.
All questions are about the whole video: what is ever there, how many there are in all, the colour of the only one of a
shape, where an object moves, and which colour appears first or last. The split follows from a checksum of the objects.
Everything is drawn from seeds: `divprune.embedded.videos`, `divprune.embedded.video_questions`.

## Recipe

`python -m tools.embedded.train_video --output DIR {command}`

{log_rows}

Scores are percent of validation questions about whole videos; under *one frame*, with the middle frame in the place of
all.

- **Objects**: the questions about each video packed behind it, loss on the answers. Of a video's tokens 80 are read, at
  their own positions: those that show objects, the others at random. That is several times as fast, and it is a
  training with tokens left out: read the results of pruning with this in mind.
- **Whole** (where listed): whole videos.

The answers alone teach time slowly. So at each token that shows an object, read-outs of the language model's layers
were trained to tell the frame, the colour, when and where the object appeared and as how manieth, where it moves, and
how many of its shape and in all there were so far; they are thrown away. One attention head of the second and third
layers was trained to look from an object's tokens to those of the frame in which it appeared, and one of the last from
the place where an answer begins to the object that it is about. Muon for the matrices, AdamW for the rest; warm-up,
plateau, linear decay; bfloat16 autocast; one CPU thread, shared with other work. The command gave these weights in one
run.

## Limits

Toy videos only. Counting, order and motion were trained at the tokens, and most of the steps left background tokens
out, so they may survive pruning better here than in models that were trained on answers and whole videos. Numbers
measured on this model show how a pruning method behaves on a small trained model, no more.

Licence: Apache-2.0.
"""
_ACCURACY = """{num_videos} test videos, unpruned, greedy, exact match. *One frame*: the same questions where the middle
frame stands for all; the model has never been trained on that. *One answer*: always the kind's most frequent one.

| question | right | one frame | one answer | asked |
|---|---|---|---|---|
{video_rows}

{num_images} test images, each asked the same questions of this model and of the embedded model:

| question | this model | the embedded model | asked |
|---|---|---|---|
{image_rows}

Measured by `python -m tools.embedded.evaluate --videos {num_videos} --scenes {num_images} --json FILE`; the numbers are
`accuracy.json` beside this card."""
_STAGES = {"video-objects": "Objects", "video": "Whole"}
_OPTIONS = {"video-objects": "object-steps", "video": "steps"}


def write_card(run: Path, checkpoint: Path) -> str:
    """The card's text, from the training log in `run` and config.json and accuracy.json in `checkpoint`."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return _CARD.format(
        parameters=(checkpoint / "model.safetensors").stat().st_size / 2 / 1e6,
        frame_tokens=FRAME_TOKENS,
        video_tokens=VIDEO_TOKENS,
        vocabulary=len(VIDEO_WORDS),
        accuracy=_accuracy(
            json.loads((checkpoint / "accuracy.json").read_text()),
            json.loads((checkpoint_path() / "accuracy.json").read_text()),
        ),
        command=" ".join(
            f"--{_OPTIONS[name]} {step}" for name, step in {line["stage"]: line["step"] for line in lines}.items()
        ),
        log_rows=_log_table(lines),
    )


def _accuracy(measured: dict[str, Any], of_image_model: dict[str, Any]) -> str:
    """Tables of videos, whole and by one frame, and of images beside the embedded model's own accuracy."""
    if of_image_model["num_scenes"] != measured["images"]["num_scenes"]:
        raise ValueError(
            f"measured must have {of_image_model['num_scenes']} images, as the embedded model's accuracy.json, "
            f"got {measured['images']['num_scenes']}; measure again with --scenes {of_image_model['num_scenes']}"
        )
    videos, one_frame, images = (measured[name] for name in ("videos", "one_frame", "images"))
    one_answer = _most_frequent(range(videos["first_seed"], videos["first_seed"] + videos["num_scenes"]))
    return _ACCURACY.format(
        num_videos=videos["num_scenes"],
        num_images=images["num_scenes"],
        video_rows=_rows(videos["kinds"], one_frame["kinds"], one_answer),
        image_rows=_rows(images["kinds"], of_image_model["kinds"]),
    )


def _most_frequent(seeds: Iterable[int]) -> dict[str, dict[str, float]]:
    """What always giving a kind's most frequent answer would score on test videos."""
    asked: dict[str, Counter[str]] = {}
    for seed in seeds:
        for question in VIDEO_BENCH.ask(VIDEO_BENCH.draw(seed)):
            asked.setdefault(question.kind, Counter())[question.answer] += 1
    return {kind: {"accuracy": max(answers.values()) / answers.total()} for kind, answers in asked.items()}


def _rows(measured: dict[str, Any], *others: dict[str, Any]) -> str:
    """A line a kind of question: its accuracies, and how many were asked."""
    return "\n".join(
        f"| {kind} | {' | '.join(_percent(each[kind]) for each in (measured, *others))} | {result['num_questions']} |"
        for kind, result in measured.items()
    )


def _percent(result: dict[str, Any]) -> str:
    return f"{100 * result['accuracy']:.1f} %"


def _log_table(lines: list[dict[str, Any]]) -> str:
    """Steps, time, loss and validation scores in percent of every check."""
    shown = (*VIDEO_KINDS, *(f"one_frame_{kind}" for kind in VIDEO_KINDS))
    rows = [f"| stage | steps | minutes | loss | {' | '.join(name.replace('_', ' ') for name in shown)} |"]
    rows.append("|---" * (4 + len(shown)) + "|")
    for line in lines:
        scores = " | ".join(f"{100 * line[name]:.0f}" for name in shown)
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
