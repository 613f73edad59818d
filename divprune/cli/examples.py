"""The bundled example: generated scenes and questions about them, none of which the embedded model was trained on.

Calibration takes its scenes from those that it was trained on, so that it has seen nothing of what is measured later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from divprune.media import Medium

NUM_SCENES = 4
KINDS_ASKED = ("existence", "count", "color", "position")


@dataclass(frozen=True)
class Ask:
    """One question about some media, shown to the model in one prompt.

    Attributes:
        media: pictures and clips, in the order of the prompt.
        prompt: the question.
        expected: the right answer, where it is known.
    """

    media: tuple[Medium, ...]
    prompt: str
    expected: str | None = None


def bundled_scenes(prompts: Sequence[str] = ()) -> list[Ask]:
    """Questions about the bundled scenes.

    Args:
        prompts: asked about every scene; by default each scene has its own questions, with known answers.
    """
    from divprune.embedded import EXAMPLE_SEEDS, questions, scene

    asks = []
    for number, seed in enumerate(EXAMPLE_SEEDS[:NUM_SCENES]):
        picture = scene(seed, "test")
        media = (Medium(f"scene {seed}", "image", (picture.image,)),)
        if prompts:
            asks += [Ask(media, prompt) for prompt in prompts]
            continue
        for kind in KINDS_ASKED:
            candidates = [question for question in questions(picture) if question.kind == kind]
            if candidates:
                # There is a question to be answered yes and one to be answered no: take turns.
                question = candidates[number % len(candidates)]
                asks.append(Ask(media, question.prompt, question.answer))
    return asks


def training_scenes(count: int, prompts: Sequence[str] = ()) -> list[Ask]:
    """Questions about scenes of the split that the embedded model was trained on: for calibration.

    Args:
        count: how many scenes.
        prompts: asked about every scene; by default each scene has one question of its own, the kinds taking turns.
    """
    from divprune.embedded import questions, scene

    asks = []
    for number in range(count):
        picture = scene(number, "train")
        media = (Medium(f"training scene {number}", "image", (picture.image,)),)
        asked = questions(picture)
        asks += [Ask(media, prompt) for prompt in prompts or (asked[number % len(asked)].prompt,)]
    return asks
