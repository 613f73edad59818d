"""What may stand in a prompt, and how prompts may be batched."""

from functools import partial

import torch

from tests.parity.cells import Mode
from tests.parity.decoding import assert_decodes
from tests.support.models.every_family import Row
from tests.support.subject import (
    MIXED,
    ONE_AND_TWO,
    ONE_AND_TWO_VIDEOS,
    WITH_TEXT_ONLY,
    NotApplicableError,
    Subject,
)


def image(subject: Subject) -> None:
    require_kind(subject, "image")
    assert_decodes(subject, ONE_AND_TWO[:1])


def images(subject: Subject) -> None:
    require_kind(subject, "image")
    assert_decodes(subject, ONE_AND_TWO[1:])


def video(subject: Subject) -> None:
    require_kind(subject, "video")
    assert_decodes(subject, ONE_AND_TWO_VIDEOS[:1])


def videos(subject: Subject) -> None:
    require_kind(subject, "video")
    assert_decodes(subject, ONE_AND_TWO_VIDEOS)


def image_and_video(subject: Subject) -> None:
    require_kind(subject, "image")
    require_kind(subject, "video")
    assert_decodes(subject, MIXED)


def padded_batch(subject: Subject) -> None:
    """Rows of different length, which keep different counts."""
    kind = subject.case.kinds[0]
    assert_decodes(subject, ONE_AND_TWO if kind == "image" else ONE_AND_TWO_VIDEOS)


def text_only_rows(subject: Subject) -> None:
    """Rows without pictures beside one with, and a call without any, which is left as it is."""
    assert_decodes(subject, [_of_kind(subject, row) for row in WITH_TEXT_ONLY])
    inputs = subject.inputs([WITH_TEXT_ONLY[0], WITH_TEXT_ONLY[2]])
    (tokens, logits, _), report = subject.pruned(partial(subject.generate, inputs))
    expected_tokens, expected_logits, _ = subject.generate(inputs)
    assert torch.equal(tokens, expected_tokens)
    assert torch.equal(logits, expected_logits)
    assert report.items == ()
    assert torch.equal(report.keep_mask, inputs["attention_mask"].bool())


def _of_kind(subject: Subject, row: Row) -> Row:
    """The same row with what the family takes."""
    return [subject.case.kinds[0] if isinstance(part, str) else part for part in row]


def require_kind(subject: Subject, kind: str) -> None:
    if kind not in subject.case.kinds:
        raise NotApplicableError(f"the family takes no {kind}s")


MODES = [
    Mode("image", "Prompts", image),
    Mode("images", "Prompts", images),
    Mode("video", "Prompts", video),
    Mode("videos", "Prompts", videos),
    Mode("image and video", "Prompts", image_and_video),
    Mode("padded", "Prompts", padded_batch),
    Mode("text rows", "Prompts", text_only_rows),
]
