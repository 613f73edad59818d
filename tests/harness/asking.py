"""Requests of lmms-eval about pictures, clips and words alone, with the pieces that a model reads them through."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from lmms_eval.api.instance import Instance
from PIL import Image

from tests.harness.data_making import write_clip

TASK, SPLIT = "made_up", "test"
# What tasks of lmms-eval give, with names that transformers does not know.
GENERATION = {"max_new_tokens": 8, "temperature": 0, "do_sample": False, "image_aspect_ratio": "original", "until": []}


@dataclass(frozen=True)
class Document:
    """A question about media: pictures, or paths of clips."""

    words: str
    media: tuple[Any, ...] = ()


def pictures(count: int, size: int = 84) -> list[Image.Image]:
    random = numpy.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=numpy.uint8)) for _ in range(count)]


def documents(folder: Path, with_clip: bool) -> list[Document]:
    """One, two and no pictures, and a clip."""
    first, second, third = pictures(3)
    asked = [
        Document("word5 word6", (first,)),
        Document("word7 word8 word9 word10", (second, third)),
        Document("word11 word12 word13"),
    ]
    if with_clip:
        path = folder / "clip.mp4"
        write_clip(path, seed=5)
        asked.append(Document("word14", (str(path),)))
    return asked


def chat(model: Any, asked: list[Document], **settings: Any) -> list[str]:
    """Answers of a chat model."""

    def messages(document: Document) -> list[dict[str, Any]]:
        kinds = ["video" if isinstance(medium, str) else "image" for medium in document.media]
        media = [{"type": kind, "url": medium} for kind, medium in zip(kinds, document.media, strict=True)]
        return [{"role": "user", "content": [*media, {"type": "text", "text": document.words}]}]

    model.task_dict[TASK] = {SPLIT: asked}
    return _texts(model, [(asked[n].words, messages, GENERATION | settings, n, TASK, SPLIT) for n in range(len(asked))])


def simple(model: Any, asked: list[Document], **settings: Any) -> list[str]:
    """Answers of a simple model."""
    model.task_dict[TASK] = {SPLIT: asked}
    visuals = [(lambda document: list(document.media)) for _ in asked]
    return _texts(
        model, [(asked[n].words, GENERATION | settings, visuals[n], n, TASK, SPLIT) for n in range(len(asked))]
    )


def _texts(model: Any, arguments: list[tuple[Any, ...]]) -> list[str]:
    about = [{"task": TASK, "doc_id": number, "repeats": 1} for number in range(len(arguments))]
    requests = [
        Instance("generate_until", given, 0, metadata) for given, metadata in zip(arguments, about, strict=True)
    ]
    return [answer.text for answer in model.generate_until(requests)]
