"""The questions that a model is tuned on: those of a batch that have images, enough of them to promise anything by."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from divprune.errors import TuningError
from divprune.progress import Progress
from divprune.serving.questions import BatchQuestion, read_questions

FEWEST_QUESTIONS = 6


def questions_with_images(
    source: Path, prompt: str | None, *, recursive: bool, limit: int | None, progress: Progress
) -> list[BatchQuestion]:
    """Read the questions that have images.

    Args:
        source: A folder of images, or a JSONL file of questions, as for `divprune batch`.
        prompt: Asked where the source does not say.
        recursive: Whether a folder's subfolders are read too.
        limit: Only so many questions, drawn at random; None for all.
        progress: Is told what is left out.

    Raises:
        BatchError: They cannot be read.
        TuningError: There are too few.
    """
    every = read_questions(source, prompt, recursive=recursive, progress=progress)
    missing = [image for question in every for image in question.files if not image.is_file()]
    if missing:
        raise TuningError(f"{len(missing)} images are missing, such as {missing[0]}")
    questions = [question for question in every if question.images]
    if not questions:
        raise TuningError(f"{source} asks about text alone: without images there is nothing to prune")
    if len(questions) < len(every):
        progress.note(f"{len(every) - len(questions)} of {len(every)} questions have no image and are left out")
    if limit is not None and limit < len(questions):
        questions = _drawn(questions, limit)
    num_images = len({question.images for question in questions})
    if num_images < FEWEST_QUESTIONS:
        raise TuningError(
            f"{len(questions)} questions about {num_images} images are too few to promise anything by; give at least "
            f"{FEWEST_QUESTIONS} images, better some hundred"
        )
    return questions


def _drawn(questions: Sequence[BatchQuestion], number: int) -> list[BatchQuestion]:
    chosen = np.random.default_rng(0).permutation(len(questions))[:number]
    return [questions[place] for place in sorted(chosen.tolist())]
