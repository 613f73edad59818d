"""Questions: answers checked by logic that shares nothing with the writer of the questions."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from divprune.embedded import KINDS, Question, Scene, questions, scene
from divprune.embedded.drawing import render
from divprune.embedded.scenes import COLORS, IMAGE_SIZE, SHAPES
from divprune.embedded.vocabulary import WORDS, plural, words
from tools.embedded.labels import object_masks

SCENES = [scene(seed) for seed in range(250)]
ASKED = [(one, question) for one in SCENES for question in questions(one, per_kind=2)]


def of_kind(kind: str) -> list[tuple[Scene, Question]]:
    return [(one, question) for one, question in ASKED if question.kind == kind]


def mentioned(prompt: str, names: tuple[str, ...]) -> str | None:
    """The name that a prompt speaks of, singular or plural."""
    found = [name for name in names if re.search(rf"\b({name}|{plural(name)})\b", prompt)]
    return found[0] if found else None


def blobs(one: Scene, color: str) -> int:
    """Connected areas of a colour in the pixels."""
    pixels, palette = render(one).astype(int), np.array(list(COLORS.values()))
    inside = object_masks(one).any(axis=0)
    nearest = np.abs(pixels[:, :, None] - palette).sum(axis=-1).argmin(axis=-1)
    # Edges blend with the background into other colours: only the bulk of an object counts.
    wanted = inside & (nearest == tuple(COLORS).index(color))
    return sum(size >= 25 for size in component_sizes(wanted))


def component_sizes(mask: np.ndarray) -> list[int]:
    """Sizes of the 4-connected components of a mask, by flooding."""
    left, sizes = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        front, size = [left.pop()], 0
        while front:
            row, column = front.pop()
            size += 1
            near = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & left
            left -= near
            front += near
        sizes.append(size)
    return sizes


def test_questions_are_deterministic_and_streams_differ() -> None:
    assert questions(SCENES[0], 2) == questions(SCENES[0], 2)
    assert any(questions(one, 2) != questions(one, 2, stream=1) for one in SCENES[:5])


def test_every_kind_is_asked() -> None:
    assert {question.kind for _, question in ASKED} == set(KINDS)
    assert all(question.scene_seed == one.seed and question.split == "test" for one, question in ASKED)


def test_existence_is_balanced_in_every_scene() -> None:
    for one in SCENES:
        answers = Counter(question.answer for question in questions(one, 3) if question.kind == "existence")
        assert answers == {"yes": 3, "no": 3}


def test_existence_answers_are_true() -> None:
    for one, question in of_kind("existence"):
        color, shape = mentioned(question.prompt, tuple(COLORS)), mentioned(question.prompt, SHAPES)
        assert question.answer == ("yes" if f"{color} {shape}" in {item.name for item in one.objects} else "no")


def test_negatives_are_adversarial() -> None:
    """Most share colour or shape with an object that is there, and many share both, with different objects."""
    shared = Counter()
    for one, question in of_kind("existence"):
        if question.answer == "no":
            color = mentioned(question.prompt, tuple(COLORS)) in {item.color for item in one.objects}
            shape = mentioned(question.prompt, SHAPES) in {item.shape for item in one.objects}
            shared[color, shape] += 1
    total = sum(shared.values())
    assert shared[False, False] < 0.2 * total
    assert shared[True, True] > 0.25 * total
    assert min(shared[True, False], shared[False, True]) > 0.1 * total


def test_colour_counts_equal_a_recount_of_the_pixels() -> None:
    checked = 0
    for one, question in of_kind("count")[:160]:
        color = mentioned(question.prompt, tuple(COLORS))
        if color:
            assert blobs(one, color) == int(question.answer), (one.seed, question)
            checked += 1
    assert checked > 30


def test_other_counts_equal_the_description() -> None:
    for one, question in of_kind("count"):
        color, shape = mentioned(question.prompt, tuple(COLORS)), mentioned(question.prompt, SHAPES)
        if color is None:
            matching = [item for item in one.objects if shape in (None, item.shape)]
            assert int(question.answer) == len(matching)


@pytest.mark.parametrize(("kind", "known", "asked"), [("color", "shape", "color"), ("shape", "color", "shape")])
def test_attribute_is_asked_of_the_only_candidate(kind: str, known: str, asked: str) -> None:
    names = {"color": tuple(COLORS), "shape": SHAPES}
    for one, question in of_kind(kind):
        value = mentioned(question.prompt, names[known])
        (only,) = [item for item in one.objects if getattr(item, known) == value]
        assert question.answer == getattr(only, asked)


def test_positions_hold_in_the_pixels() -> None:
    """The middle of the mask of the object asked about lies in the third of the picture that the answer names."""
    for one, question in of_kind("position"):
        color, shape = mentioned(question.prompt, tuple(COLORS)), mentioned(question.prompt, SHAPES)
        (place,) = [place for place, item in enumerate(one.objects) if item.name == f"{color} {shape}"]
        rows, columns = np.nonzero(object_masks(one)[place])
        row, column = (int(3 * (line.min() + line.max()) / 2 // IMAGE_SIZE) for line in (rows, columns))
        expected = f"{('top', 'middle', 'bottom')[row]} {('left', 'center', 'right')[column]}"
        assert question.answer == expected.replace("middle center", "center")


def test_captions_list_every_object_once() -> None:
    numbers = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    for one, question in of_kind("caption"):
        listed: Counter[str] = Counter()
        for phrase in re.split(r", | and ", question.answer):
            amount, color, noun = phrase.split()
            listed[f"{color} {mentioned(noun, SHAPES)}"] += numbers[amount]
        assert listed == Counter(item.name for item in one.objects)


def test_vocabulary_holds_every_word() -> None:
    used = {word for _, question in ASKED for text in (question.prompt, question.answer) for word in words(text)}
    assert used <= set(WORDS)


def test_blank_scene_image_is_rgb() -> None:
    assert isinstance(SCENES[0].image, Image.Image)
    assert SCENES[0].image.mode == "RGB"
