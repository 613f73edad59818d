"""Supervised attention heads of the embedded video model: the language loss alone does not find where to look in time.

One head of two layers looks from an object's tokens back to those of the frame in which it appeared: with what it
looked like then, it is easy to tell when it came and where it has moved. One head of the last layer looks from the
place where an answer begins to the object that the answer is about.
"""

import torch
from transformers import LlavaNextVideoForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from divprune.embedded.questions import Question
from divprune.embedded.scenes import COLORS
from tools.embedded.packing import NOT_AN_ANSWER, PackedBatch
from tools.embedded.video_labels import TOKEN_LABELS

SIGHT_LAYERS = (1, 2)  # their outputs reach the last layer, in which answers read them
ANSWER_LAYER = 3
HEAD = 0
_COLOR_NAMES = tuple(COLORS)


def first_sight_loss(
    model: LlavaNextVideoForConditionalGeneration,
    states: tuple[torch.Tensor, ...],
    batch: PackedBatch,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Return the mean negative log of the attention that object tokens give to their object's first frame.

    Args:
        model: the whole model.
        states: (batch, L, width) each, what enters the layers.
        batch: the packed batch.
        labels: (batch, len(TOKEN_LABELS), n) int64 of the n visual tokens that end the prefix.
    """
    color, frame, arrival = (_label(labels, name) for name in ("color", "frame", "arrival"))
    is_object = frame >= 0
    is_first = (color[:, :, None] == color[:, None, :]) & (is_object & (frame == arrival))[:, None, :]
    prefix = slice(batch.num_prefix)
    causal = torch.ones(batch.num_prefix, batch.num_prefix, dtype=torch.bool).tril()
    # Where not all tokens are read, those of the first frame may be missing; and later ones are not seen.
    is_wanted = is_first & torch.ones(is_first.shape[1:], dtype=torch.bool).tril()
    asked = is_object & is_wanted.any(dim=-1)
    total = torch.zeros(())
    for layer in SIGHT_LAYERS:
        query, key = _rotated(model, layer, states[layer][:, prefix], batch.position_ids[:, prefix])
        log_attention = _log_attention(model, layer, query @ key.mT, causal)
        visual = log_attention[:, -labels.shape[2] :, -labels.shape[2] :]
        total = total + _negative_log(visual[asked], is_wanted[asked])
    return total / len(SIGHT_LAYERS)


def answer_sight_loss(
    model: LlavaNextVideoForConditionalGeneration,
    states: tuple[torch.Tensor, ...],
    batch: PackedBatch,
    labels: torch.Tensor,
    rows: list[list[Question]],
) -> torch.Tensor:
    """Return the mean negative log of the attention that answers about one object give to its tokens.

    Args:
        model: the whole model.
        states: (batch, L, width) each, what enters the layers.
        batch: the packed batch.
        labels: (batch, len(TOKEN_LABELS), n) int64 of the n visual tokens that end the prefix.
        rows: the questions of the batch.
    """
    query, key = _rotated(model, ANSWER_LAYER, states[ANSWER_LAYER], batch.position_ids)
    is_target = batch.targets != NOT_AN_ANSWER
    # Answers end with a token that predicts nothing, so they do not touch.
    row, place = (is_target & ~is_target.roll(1, dims=1)).nonzero(as_tuple=True)
    scores = (query[row, place][:, None] @ key[row].mT)[:, 0]
    log_attention = _log_attention(model, ANSWER_LAYER, scores, batch.attention_mask[row, 0, place])
    first = batch.num_prefix - labels.shape[2]
    asked_color = torch.tensor([_color_of(question) for asked in rows for question in asked])
    is_wanted = (_label(labels, "color")[row] == asked_color[:, None]) & (asked_color >= 0)[:, None]
    moves = torch.tensor([question.kind == "motion" for asked in rows for question in asked])
    is_wanted &= (_label(labels, "direction")[row] >= 0) | ~moves[:, None]
    asked = is_wanted.any(dim=-1)
    return _negative_log(log_attention[asked, first : batch.num_prefix], is_wanted[asked])


def _color_of(question: Question) -> int:
    """Return the colour of the object that the answer is about, as a place in COLORS; -1 if there is no such object."""
    if question.answer in COLORS:
        return _COLOR_NAMES.index(question.answer)
    named = [word for word in question.prompt.split() if word in COLORS]
    return _COLOR_NAMES.index(named[0]) if named and question.answer != "no" else -1


def _label(labels: torch.Tensor, name: str) -> torch.Tensor:
    return labels[:, list(TOKEN_LABELS).index(name)]


def _negative_log(log_attention: torch.Tensor, is_wanted: torch.Tensor) -> torch.Tensor:
    return -log_attention.masked_fill(~is_wanted, -torch.inf).logsumexp(dim=-1).mean()


def _rotated(
    model: LlavaNextVideoForConditionalGeneration, layer: int, states: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, n, head width) queries and keys of head HEAD of a layer, with their positions."""
    language = model.model.language_model
    attention = language.layers[layer].self_attn
    own = slice(HEAD * attention.head_dim, (HEAD + 1) * attention.head_dim)
    normed = language.layers[layer].input_layernorm(states)
    query, key = (
        torch.nn.functional.linear(normed, projection.weight[own])[:, None].float()
        for projection in (attention.q_proj, attention.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *language.rotary_emb(query, positions))
    return query[:, 0], key[:, 0]


def _log_attention(
    model: LlavaNextVideoForConditionalGeneration, layer: int, products: torch.Tensor, is_seen: torch.Tensor
) -> torch.Tensor:
    scores = products * model.model.language_model.layers[layer].self_attn.scaling
    return scores.masked_fill(~is_seen, -torch.inf).log_softmax(dim=-1)
