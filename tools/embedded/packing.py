"""Many questions behind one image, each blind to the others: every one is exactly the single-question prompt.

A packed row is the prefix (BOS, "USER:", the image) and then question after question. A question sees the prefix and
itself, and its position ids restart right after the image, as if it were alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from divprune.embedded.questions import Question
from divprune.embedded.vocabulary import IMAGE_TOKEN, WORDS, words
from tools.embedded.model import NUM_VISUAL_TOKENS

_BOS, _EOS, _PAD = (WORDS.index(word) for word in ("<s>", "</s>", "<pad>"))
PREFIX_IDS: tuple[int, ...] = (
    _BOS,
    WORDS.index("user"),
    WORDS.index(":"),
    *([WORDS.index(IMAGE_TOKEN)] * NUM_VISUAL_TOKENS),
)
NOT_AN_ANSWER = -100


@dataclass(frozen=True)
class PackedBatch:
    """Rows of packed questions, right-padded; L is the longest row's length, prefix included."""

    input_ids: torch.Tensor  # (batch, L) int64
    position_ids: torch.Tensor  # (batch, L) int64
    attention_mask: torch.Tensor  # (batch, 1, L, L) bool, True where a query (third) may see a key (fourth)
    targets: torch.Tensor  # (batch, L) int64, the next token where it belongs to an answer, else NOT_AN_ANSWER
    weights: torch.Tensor  # (batch, L) float32, of each target in the loss
    question_index: torch.Tensor  # (batch, L) int64, which of the row's questions, -1 in the prefix and the padding
    num_prefix: int = len(PREFIX_IDS)  # tokens of the prefix, the same in all rows


def word_ids(text: str, vocabulary: Sequence[str] = WORDS) -> list[int]:
    """Token ids of a text without BOS, as the saved tokenizer gives them."""
    known = {word: place for place, word in enumerate(vocabulary)}
    return [known.get(word, known["<unk>"]) for word in words(text)]


def pack(
    rows: list[list[Question]], prefix_ids: Sequence[int] = PREFIX_IDS, vocabulary: Sequence[str] = WORDS
) -> PackedBatch:
    """Pack the questions about each image or video into one row."""
    packed = [_pack_row(asked, prefix_ids, vocabulary) for asked in rows]
    length = max(len(columns[0]) for columns in packed)
    fills: tuple[float, ...] = (_PAD, 0, -1, NOT_AN_ANSWER, 0.0)
    ids, positions, index, targets, weights = (
        torch.tensor([[*columns[field], *([fill] * (length - len(columns[field])))] for columns in packed])
        for field, fill in enumerate(fills)
    )
    num_prefix = len(prefix_ids)
    return PackedBatch(ids, positions, _attention_mask(index, num_prefix), targets, weights, index, num_prefix)


def _pack_row(
    asked: list[Question], prefix_ids: Sequence[int], vocabulary: Sequence[str]
) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    """Token ids, position ids, question index, targets and weights of one row."""
    prefix = len(prefix_ids)
    ids, positions, index = list(prefix_ids), list(range(prefix)), [-1] * prefix
    targets, weights = [NOT_AN_ANSWER] * prefix, [0.0] * prefix
    for place, question in enumerate(asked):
        prompt = word_ids(question.prompt + " ASSISTANT:", vocabulary)
        answer = [*word_ids(question.answer, vocabulary), _EOS]
        ids += [*prompt, *answer]
        positions += range(prefix, prefix + len(prompt) + len(answer))
        index += [place] * (len(prompt) + len(answer))
        targets += [*[NOT_AN_ANSWER] * (len(prompt) - 1), *answer, NOT_AN_ANSWER]
        # A long caption should not drown the short answers, nor weigh as little as one word.
        weights += [len(answer) ** -0.5] * (len(prompt) + len(answer))
    return ids, positions, index, targets, weights


def _attention_mask(question_index: torch.Tensor, num_prefix: int) -> torch.Tensor:
    """(batch, L) question indices to (batch, 1, L, L): causal, and only the prefix or one's own question."""
    length = question_index.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    in_prefix = torch.arange(length) < num_prefix
    same = question_index[:, :, None] == question_index[:, None, :]
    return (causal & (in_prefix | same))[:, None]
