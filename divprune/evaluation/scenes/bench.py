"""The two built-in benches: generated images and generated videos, their questions, and who answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from divprune.checkpoints import EMBEDDED, EMBEDDED_VIDEO
from divprune.embedded import (
    KINDS,
    VIDEO_KINDS,
    Question,
    Scene,
    Video,
    generated_video,
    num_parameters,
    questions,
    scene,
    video_questions,
)
from divprune.embedded.videos import NUM_VIDEO_FRAMES
from divprune.evaluation.scenes.baselines import BLIND_VIDEO, VIDEO_BASELINES, WITHHELD, Baseline
from divprune.methods.item_context import Modality

CAPTION = "caption"


@dataclass(frozen=True)
class AnswerGroup:
    """Questions that are answered together.

    Attributes:
        name: of the batches.
        kinds: of the questions.
        max_new_tokens: room for the answers.
    """

    name: str
    kinds: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class SceneBench:
    """What is shown and asked, and who answers.

    Attributes:
        suite: its name on the command line; the record is called after it.
        subject: what the notice says is shown.
        modality: of what is shown.
        model: the embedded model that answers.
        draw: seed -> the image's or video's description, of the test split.
        media: its image, or the frames of its video.
        ask: the questions about it.
        kinds: of the questions, all of them.
        parts: how they are batched.
        keep_ratios: compared by default.
        num_shown: how many images or videos are asked about by default.
        withheld: name of the row without the image or video.
        baselines: rows that are no registered methods, by name.
        num_frames: of what is shown.
    """

    suite: str
    subject: str
    modality: Modality
    model: str
    draw: Callable[[int], Any]
    media: Callable[[Any], Any]
    ask: Callable[[Any], list[Question]]
    kinds: tuple[str, ...]
    parts: tuple[AnswerGroup, ...]
    keep_ratios: tuple[float, ...]
    num_shown: int
    withheld: str
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    num_frames: int = 1

    @property
    def record_name(self) -> str:
        """What the record is called."""
        return f"eval-{self.suite}"

    @property
    def has_captions(self) -> bool:
        """Whether captions are among the questions."""
        return CAPTION in self.kinds

    def notice(self) -> str:
        """Say in two sentences what the numbers are worth: who answers, and about what."""
        return (
            f"A bench on toy {self.subject} of {num_parameters(self.model) / 1e6:.1f} M parameters. It compares "
            f"methods end to end and says little about {'photographs' if self.modality == 'image' else 'films'}."
        )


def answer_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds with one short answer: they make the mean. A caption is right only if it lists every object."""
    return tuple(kind for kind in kinds if kind != CAPTION)


def _test_scene(seed: int) -> Scene:
    return scene(seed, "test")


def _test_video(seed: int) -> Video:
    return generated_video(seed, "test")


def _image_of(shown: Scene) -> Any:
    return shown.image


def _frames_of(shown: Video) -> Any:
    return list(shown.frames)


IMAGE_BENCH = SceneBench(
    suite="scenes",
    subject="scenes: generated shapes, answered by the embedded model",
    modality="image",
    model=EMBEDDED,
    draw=_test_scene,
    media=_image_of,
    ask=questions,
    kinds=KINDS,
    # Answered together, captions would hold the others up.
    parts=(AnswerGroup("answers", answer_kinds(KINDS), 6), AnswerGroup("captions", (CAPTION,), 48)),
    keep_ratios=(0.5, 0.25, 0.098, 0.05),
    num_shown=500,
    withheld=WITHHELD,
)
VIDEO_BENCH = SceneBench(
    suite="scenes-video",
    subject="videos: generated shapes that stay, move and appear, answered by the embedded video model",
    modality="video",
    model=EMBEDDED_VIDEO,
    draw=_test_video,
    media=_frames_of,
    ask=video_questions,
    kinds=VIDEO_KINDS,
    parts=(AnswerGroup("answers", VIDEO_KINDS, 6),),
    keep_ratios=(0.25, 0.1, 0.05),
    num_shown=250,
    withheld=BLIND_VIDEO,
    baselines=VIDEO_BASELINES,
    num_frames=NUM_VIDEO_FRAMES,
)
BENCHES = {bench.suite: bench for bench in (IMAGE_BENCH, VIDEO_BENCH)}
