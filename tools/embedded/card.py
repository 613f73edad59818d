"""The model card, written from measured files only.

`python -m tools.embedded.card --run DIR --checkpoint DIR`: the run's log and the checkpoint's accuracy.json become its
README.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from divprune.embedded.scenes import COLORS, SHAPES
from divprune.outputs import write_whole

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# The embedded model of divprune

A LLaVA of {parameters:.1f} million parameters, trained from nothing on generated scenes: coloured shapes on textured
backgrounds. It exists so that visual-token pruning can be tried, tested and measured in seconds on any machine, along
the same path that a 7B model takes (`AutoProcessor`, `AutoModelForImageTextToText`, `generate`).

- Vision tower: CLIP, {tower_layers} layers, {width} wide, {image_size} px, {patch_size} px patches, {num_visual_tokens}
  visual tokens, read at the second last layer. The last layer serves the CLS token alone, trained to tell which objects
  are there.
- Projector: two layers. Language model: Llama, {language_layers} layers, {width} wide, {vocabulary} words.

## Accuracy

{num_scenes} test scenes, unpruned, greedy, exact match ({test_seconds:.0f} s of answering). Measured by
`python -m tools.embedded.evaluate --scenes {num_scenes} --json FILE`; the numbers are `accuracy.json` beside this
card.

| question | right | asked |
|---|---|---|
{accuracy_rows}

Existence questions are half yes, half no; most of the no's name an object whose colour, or shape, or both (on different
objects) are in the picture. A caption is right only if every object is listed, in order. The split of a scene follows
from a checksum of its objects, so no test scene equals a training scene.

## Data

Scenes of 1 to 6 objects ({num_colors} colours, {num_shapes} shapes, radius 9 to 16 px, slightly rotated) on smooth
noise, stripes, checkers, gradients or grain; questions about existence, count, colour, shape and position (a 3 x 3
grid), and a caption. Everything is drawn on the fly from seeds: `divprune.embedded.scenes`,
`divprune.embedded.questions`.

## Recipe

`python -m tools.embedded.train --output DIR {command}`

{stage_rows}

Muon for the matrices of layers and projector, AdamW for the rest; warm-up, plateau, linear decay; bfloat16 autocast. No
pruning took place in training.

- **Tower**: per patch the object's colour, shape and both jointly, its region, its extent, how many objects share its
  colour or its shape and how many there are, and whether its centre lies here (from exact masks); for CLS, which of
  the {num_kinds} colour-shape pairs are in the picture. These read-outs are thrown away.
- **Language**: projector and language model on the frozen tower, a dozen or more questions packed behind each picture,
  each blind to the others; loss on the answers only.
- **Whole** (where listed): everything together at a low rate.

The recipe was found while these weights were trained, so they differ from what the command gives in this: the tower's
labels of extent and counts joined at step 1,700, with a second warm-up and decay; the language model worked on the
tower of step 1,700 until its own step 1,400; and its mix of questions, about even at first, moved towards counting from
step 800 on. The command has not been run from beginning to end on one setting.

Machine: 2 CPU cores, shared with other work.

## Limits

Toy scenes only: it has never seen a photograph and knows {vocabulary} words. One picture a prompt, one question a
conversation. Long captions often miss or repeat an object. The tower was trained to tell, at each of an object's
tokens, how many objects share its colour or shape; so counting may survive pruning better here than in models that
count tokens. Numbers measured on this model show how a pruning method behaves on a small trained model, no more.

Licence: Apache-2.0.
"""
_STAGE_NAMES = {"tower": "Tower", "language": "Language", "whole": "Whole"}


def write_card(run: Path, checkpoint: Path) -> str:
    """The card's text, from the training log in `run` and config.json and accuracy.json in `checkpoint`."""
    config = json.loads((checkpoint / "config.json").read_text())
    measured = json.loads((checkpoint / "accuracy.json").read_text())
    tower, language = config["vision_config"], config["text_config"]
    return _CARD.format(
        parameters=(checkpoint / "model.safetensors").stat().st_size / 2 / 1e6,
        tower_layers=tower["num_hidden_layers"],
        width=tower["hidden_size"],
        image_size=tower["image_size"],
        patch_size=tower["patch_size"],
        num_visual_tokens=config["image_seq_length"],
        language_layers=language["num_hidden_layers"],
        vocabulary=language["vocab_size"],
        num_scenes=measured["num_scenes"],
        test_seconds=measured["seconds"],
        accuracy_rows="\n".join(_accuracy_row(kind, result) for kind, result in measured["kinds"].items()),
        num_colors=len(COLORS),
        num_shapes=len(SHAPES),
        num_kinds=len(COLORS) * len(SHAPES),
        command=" ".join(f"--{name}-steps {last['step']}" for name, last in _last_lines(run).items()),
        stage_rows=_stage_table(run),
    )


def _accuracy_row(kind: str, result: dict[str, Any]) -> str:
    return f"| {kind} | {100 * result['accuracy']:.1f} % | {result['num_questions']} |"


def _last_lines(run: Path) -> dict[str, dict[str, Any]]:
    """The last line of the training log for each stage, in order."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["stage"]: line for line in lines}


def _stage_table(run: Path) -> str:
    rows = ["| stage | steps | minutes | loss at the end |", "|---|---|---|---|"]
    for name, last in _last_lines(run).items():
        rows.append(f"| {_STAGE_NAMES[name]} | {last['step']} | {last['seconds'] / 60:.0f} | {last['loss']:.3f} |")
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
