"""Examples for demonstrations and calibrations: generated scenes with questions, and images of the user's own.

The bundled scenes are none of those that the embedded model was trained on. Calibration takes its scenes from those, so
that it has seen nothing of what is measured later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.embedded.templates import TEMPLATES
from divprune.errors import ArgumentError
from divprune.media import Medium, image_suffixes

NUM_SCENES = 4
KINDS_ASKED = ("existence", "count", "color", "position")
# Word for word one of the questions that the embedded model was trained on.
DEFAULT_PROMPT = TEMPLATES["caption"][0]


@dataclass(frozen=True)
class Example:
    """One question about some media, shown to the model in one prompt.

    Attributes:
        media: images and videos, in the order of the prompt.
        prompt: the question.
        expected: the right answer, where it is known.
    """

    media: tuple[Medium, ...]
    prompt: str
    expected: str | None = None


def bundled_scenes(prompts: Sequence[str] = ()) -> list[Example]:
    """Return questions about the bundled scenes.

    Args:
        prompts: asked about every scene; by default each scene has its own questions, with known answers.
    """
    from divprune.embedded import EXAMPLE_SEEDS, questions, scene

    examples = []
    for number, seed in enumerate(EXAMPLE_SEEDS[:NUM_SCENES]):
        shown = scene(seed, "test")
        media = (Medium(f"scene {seed}", "image", (shown.image,)),)
        if prompts:
            examples += [Example(media, prompt) for prompt in prompts]
            continue
        for kind in KINDS_ASKED:
            candidates = [question for question in questions(shown) if question.kind == kind]
            if candidates:
                # There is a question to be answered yes and one to be answered no: take turns.
                question = candidates[number % len(candidates)]
                examples.append(Example(media, question.prompt, question.answer))
    return examples


def training_scenes(count: int, prompts: Sequence[str] = ()) -> list[Example]:
    """Return questions about scenes of the split that the embedded model was trained on: for calibration.

    Args:
        count: how many scenes.
        prompts: asked about every scene; by default each scene has one question of its own, the kinds taking turns.
    """
    from divprune.embedded import questions, scene

    examples = []
    for number in range(count):
        shown = scene(number, "train")
        media = (Medium(f"training scene {number}", "image", (shown.image,)),)
        own = questions(shown)
        examples += [Example(media, prompt) for prompt in prompts or (own[number % len(own)].prompt,)]
    return examples


def image_files(path: Path) -> list[Path]:
    """Return an image file, or those in a folder.

    Raises:
        ArgumentError: there are none in the folder.
    """
    if not path.is_dir():
        return [path]
    suffixes = image_suffixes()
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes)
    if not found:
        raise ArgumentError(f"`images` {path}: there are no images in this folder")
    return found
