"""Questions about a scene whose answers follow from its description."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from divprune.embedded.scenes import COLORS, SHAPES, Scene, SceneObject, Split
from divprune.embedded.templates import KINDS, TEMPLATES
from divprune.embedded.vocabulary import NUMBERS, plural

_SPLIT_CODES: dict[Split, int] = {"train": 11, "validation": 12, "test": 13}


@dataclass(frozen=True)
class Question:
    """A prompt about one scene or video and the one right answer."""

    kind: str
    prompt: str
    answer: str
    scene_seed: int
    split: Split


def questions(scene: Scene, per_kind: int | Mapping[str, int] = 1, stream: int = 0) -> list[Question]:
    """Ask about a scene; deterministic, and balanced where the answer is yes or no.

    Args:
        scene: what is asked about.
        per_kind: how many of each kind (existence: this many with yes and as many with no; caption: always one).
            A kind that needs a unique object gives fewer where the scene has not that many. Or a number for each kind.
        stream: draws other questions about the same scene.

    Returns:
        The questions, in the order of KINDS.
    """
    numbers = per_kind if isinstance(per_kind, Mapping) else dict.fromkeys(KINDS, per_kind)
    generator = question_generator(scene.split, scene.seed, stream)
    writer = _Writer(scene, generator)
    asked = [
        *writer.existence(numbers["existence"]),
        *writer.count(numbers["count"]),
        *writer.color(numbers["color"]),
        *writer.shape(numbers["shape"]),
        *writer.position(numbers["position"]),
        ("caption", writer.pick(TEMPLATES["caption"]), caption(scene)),
    ]
    return [Question(kind, prompt, answer, scene.seed, scene.split) for kind, prompt, answer in asked]


def question_generator(split: Split, seed: int, stream: int, *more: int) -> np.random.Generator:
    """Return what draws the questions about a scene or video."""
    return np.random.default_rng([_SPLIT_CODES[split], seed, stream, *more])


def caption(scene: Scene) -> str:
    """List the objects, kinds ordered by colour and then shape (the order of COLORS and SHAPES).

    As in "a red circle, two blue stars and an orange square".
    """
    amounts = Counter((item.color, item.shape) for item in scene.objects)
    ordered = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) in amounts]
    phrases = [_phrase(color, shape, amounts[color, shape]) for color, shape in ordered]
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _phrase(color: str, shape: str, amount: int) -> str:
    if amount == 1:
        return f"{article_of(color)} {color} {shape}"
    return f"{NUMBERS[amount]} {color} {plural(shape)}"


def article_of(word: str) -> str:
    """Return the article before a word."""
    return "an" if word[0] in "aeiou" else "a"


def once(values: list[str]) -> list[str]:
    """Return the values that occur once."""
    return [value for value, amount in Counter(values).items() if amount == 1]


Asked = tuple[str, str, str]
"""Kind, prompt and answer."""
_Choice = TypeVar("_Choice")


class ExistenceWriter:
    """Draws questions about what is there."""

    def __init__(
        self, present: set[tuple[str, str]], templates: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> None:
        """Take the colours and shapes that are there, the wordings by kind, and what draws."""
        self.present = present
        self.templates = templates
        self.generator = generator

    def pick(self, choices: Sequence[_Choice]) -> _Choice:
        """One of the choices, all equally likely."""
        return choices[int(self.generator.integers(len(choices)))]

    def sample(self, choices: Sequence[_Choice], number: int) -> list[_Choice]:
        """Up to `number` different choices in random order."""
        return [choices[int(place)] for place in self.generator.permutation(len(choices))[:number]]

    def existence(self, number: int) -> list[Asked]:
        """As many pairs that are there as pairs that are not."""
        asked = []
        for _ in range(number):
            for (color, shape), answer in ((self.pick(sorted(self.present)), "yes"), (self._absent(), "no")):
                prompt = self.pick(self.templates["existence"]).format(
                    article=article_of(color), name=f"{color} {shape}"
                )
                asked.append(("existence", prompt, answer))
        return asked

    def _absent(self) -> tuple[str, str]:
        """Return a pair that is not there: half the time its colour and its shape both are, on different objects."""
        colors, shapes = {color for color, _ in self.present}, {shape for _, shape in self.present}
        draw = self.generator.random()
        want_color, want_shape = draw < 0.7, draw < 0.5 or 0.7 <= draw < 0.9
        absent = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in self.present]
        wanted = [(c, s) for c, s in absent if (c in colors) == want_color and (s in shapes) == want_shape]
        adversarial = [(c, s) for c, s in absent if c in colors or s in shapes]
        return self.pick(wanted or adversarial)


class _Writer(ExistenceWriter):
    """Draws the questions of each kind for one scene."""

    def __init__(self, scene: Scene, generator: np.random.Generator) -> None:
        super().__init__({(item.color, item.shape) for item in scene.objects}, TEMPLATES, generator)
        self.objects = scene.objects

    def count(self, number: int) -> list[Asked]:
        """Count all objects, those of a colour, or those of a shape; now and then of something absent."""
        asked = []
        for _ in range(number):
            things, amount = self._countable()
            asked.append(("count", self.pick(TEMPLATES["count"]).format(things=things), str(amount)))
        return asked

    def _countable(self) -> tuple[str, int]:
        draw, any_value = self.generator.random(), self.generator.random() < 0.2
        if draw < 0.3:
            return self.pick(("objects", "things", "shapes")), len(self.objects)
        if draw < 0.65:
            color = self.pick(tuple(COLORS) if any_value else [item.color for item in self.objects])
            return f"{color} {self.pick(('objects', 'things'))}", sum(item.color == color for item in self.objects)
        shape = self.pick(SHAPES if any_value else [item.shape for item in self.objects])
        return plural(shape), sum(item.shape == shape for item in self.objects)

    def color(self, number: int) -> list[Asked]:
        """Return the colour of a shape that occurs once."""
        unique = once([item.shape for item in self.objects])
        chosen = self.sample([item for item in self.objects if item.shape in unique], number)
        return [("color", self.pick(TEMPLATES["color"]).format(shape=item.shape), item.color) for item in chosen]

    def shape(self, number: int) -> list[Asked]:
        """Return the shape of a colour that occurs once."""
        unique = once([item.color for item in self.objects])
        chosen = self.sample([item for item in self.objects if item.color in unique], number)
        return [
            (
                "shape",
                self.pick(TEMPLATES["shape"]).format(color=item.color, thing=self.pick(("object", "thing"))),
                item.shape,
            )
            for item in chosen
        ]

    def position(self, number: int) -> list[Asked]:
        """Return the region of an object whose name occurs once."""
        unique = once([item.name for item in self.objects])
        chosen: list[SceneObject] = self.sample([item for item in self.objects if item.name in unique], number)
        return [("position", self.pick(TEMPLATES["position"]).format(name=item.name), item.region) for item in chosen]
