"""Questions about videos: worked by hand for some seeds, and checked against the pixels' own story for many."""

import re
from collections import Counter

import pytest

from divprune.embedded import VIDEO_KINDS, Question, Video, generated_video, video_questions
from divprune.embedded.scenes import COLORS, SHAPES
from divprune.embedded.videos import VideoObject
from divprune.embedded.vocabulary import VIDEO_WORDS, WORDS, plural, words

VIDEOS = [generated_video(seed) for seed in range(250)]
ASKED = [(video, question) for video in VIDEOS for question in video_questions(video, 2)]


def mentioned(prompt: str, names: tuple[str, ...]) -> str | None:
    """The name that a prompt speaks of, singular or plural."""
    found = [name for name in names if re.search(rf"\b({name}|{plural(name)})\b", prompt)]
    return found[0] if found else None


def asked_about(video: Video, question: Question) -> list[VideoObject]:
    """The objects with the colour and the shape that a prompt speaks of."""
    color, shape = mentioned(question.prompt, tuple(COLORS)), mentioned(question.prompt, SHAPES)
    return [item for item in video.objects if color in (None, item.color) and shape in (None, item.shape)]


def of_kind(kind: str) -> list[tuple[Video, Question]]:
    return [(video, question) for video, question in ASKED if question.kind == kind]


def test_answers_of_two_seeds_worked_out_by_hand() -> None:
    # Seed 0, test: a green triangle in frames 1 to 3; a white circle, 3 to 6, and a cyan one, 4 to 7, both moving
    # right. Two circles in all; cyan is the last to appear.
    told = {(question.kind, question.prompt): question.answer for question in video_questions(generated_video(0))}
    assert told == {
        ("existence", "Is there ever a cyan circle?"): "yes",
        ("existence", "Is there a white triangle in the video?"): "no",
        ("count", "How many circles does the video show?"): "2",
        ("color", "What color is the triangle?"): "green",
        ("motion", "Where does the cyan circle move?"): "right",
        ("order", "Which color appears last?"): "cyan",
    }
    # Seed 2, test: four crosses, so no colour to ask. Purple (0 to 3), blue (1 to 4) and red (4 to 7) move right;
    # orange, in frames 5 and 6, stands and is the last to appear.
    told = {(question.kind, question.prompt): question.answer for question in video_questions(generated_video(2))}
    assert told == {
        ("existence", "Is there a red cross in the video?"): "yes",
        ("existence", "Does the video show a red triangle?"): "no",
        ("count", "How many circles are there in the video?"): "0",
        ("motion", "Where does the blue cross move?"): "right",
        ("order", "Which color is the last to appear?"): "orange",
    }


def test_questions_are_deterministic_and_streams_differ() -> None:
    assert video_questions(VIDEOS[0], 2) == video_questions(VIDEOS[0], 2)
    assert any(video_questions(video, 2) != video_questions(video, 2, stream=1) for video in VIDEOS[:5])


def test_every_kind_is_asked() -> None:
    assert {question.kind for _, question in ASKED} == set(VIDEO_KINDS)
    assert all(question.scene_seed == video.seed and question.split == "test" for video, question in ASKED)


def test_existence_is_balanced_and_true() -> None:
    for video in VIDEOS:
        answers = Counter(question.answer for question in video_questions(video, 3) if question.kind == "existence")
        assert answers == {"yes": 3, "no": 3}
    for video, question in of_kind("existence"):
        assert question.answer == ("yes" if asked_about(video, question) else "no")


def test_counts_are_of_the_whole_video() -> None:
    beyond_any_frame = 0
    for video, question in of_kind("count"):
        found = asked_about(video, question)
        assert question.answer == str(len(found))
        most = max(sum(item.at(frame) is not None for item in found) for frame in range(8))
        beyond_any_frame += most < len(found)
    # Some counts no single frame can tell.
    assert beyond_any_frame > 200


def test_colour_is_of_the_only_one_of_its_shape() -> None:
    for video, question in of_kind("color"):
        (only,) = asked_about(video, question)
        assert question.answer == only.color


def test_motion_is_between_an_object_s_first_and_last_frame() -> None:
    for video, question in of_kind("motion"):
        (only,) = asked_about(video, question)
        before, after = only.at(only.first_frame), only.at(only.last_frame)
        assert before is not None
        assert after is not None
        right, down = after.center_x - before.center_x, after.center_y - before.center_y
        assert min(abs(right), abs(down)) == 0 < 16 <= max(abs(right), abs(down))
        expected = {(True, False): "right", (False, True): "down"}.get((right > 0, down > 0))
        assert question.answer == (expected or ("left" if right < 0 else "up"))


def test_one_frame_does_not_tell_the_motion() -> None:
    """The best guess from an object's place, among 8 x 8, where the middle frame shows it: chance is a quarter."""
    ways: dict[tuple[int, int], Counter[str]] = {}
    for seed in range(1000):
        for item in generated_video(seed, "train").objects:
            thing = item.at(4)
            if item.direction and thing is not None:
                ways.setdefault((thing.center_x // 16, thing.center_y // 16), Counter())[item.direction] += 1
    best = sum(max(counts.values()) for counts in ways.values())
    assert best < 0.5 * sum(counts.total() for counts in ways.values())


@pytest.mark.parametrize("frame", range(8))
def test_no_frame_shows_what_questions_are_about(frame: int) -> None:
    for kind, most in (("existence", 0.65), ("color", 0.65), ("order", 0.65)):
        asked = [(video, question) for video, question in of_kind(kind) if question.answer != "no"]
        told = [
            item.at(frame) is not None
            for video, question in asked
            for item in (asked_about(video, question) if kind != "order" else video.objects)
            if kind != "order" or item.color == question.answer
        ]
        assert len(told) == len(asked)
        assert sum(told) < most * len(told)


@pytest.mark.parametrize(("place", "end"), [("first", 0), ("last", -1)])
def test_order_follows_from_the_frames(place: str, end: int) -> None:
    asked = [(video, question) for video, question in of_kind("order") if place in words(question.prompt)]
    assert len(asked) > 50
    for video, question in asked:
        # Frame by frame: the colours that were not there before.
        seen: list[list[str]] = []
        known: set[str] = set()
        for scene in video.scenes:
            new = [item.color for item in scene.objects if item.color not in known]
            known |= set(new)
            seen.append(new)
        assert question.answer == [color for new in seen for color in new][end]


def test_vocabulary_grows_behind_the_words_of_images() -> None:
    used = {word for _, question in ASKED for text in (question.prompt, question.answer) for word in words(text)}
    assert used <= set(VIDEO_WORDS)
    assert VIDEO_WORDS[: len(WORDS)] == WORDS
