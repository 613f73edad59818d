"""Teach one attention head to look from an object's tokens to those of the frame in which it appeared.

The language loss alone does not find this in a few hundred steps, and with it time is easy: what a token's object
looked like at first tells when it came and where it has moved.
"""

import torch
from transformers import LlavaNextVideoForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tools.embedded.packing import PackedBatch
from tools.embedded.video_labels import TOKEN_LABELS

LAYER, HEAD = 2, 0  # its output reaches the last layer, in which answers read it


def first_sight_loss(
    model: LlavaNextVideoForConditionalGeneration, states: torch.Tensor, batch: PackedBatch, labels: torch.Tensor
) -> torch.Tensor:
    """Return the mean negative log of the attention that object tokens give to their object's first frame.

    Args:
        model: the whole model.
        states: (batch, L, width), what enters layer LAYER.
        batch: the packed batch.
        labels: (batch, len(TOKEN_LABELS), n) int64 of the n visual tokens that end the prefix.
    """
    names = list(TOKEN_LABELS)
    color, frame, arrival = (labels[:, names.index(name)] for name in ("color", "frame", "arrival"))
    is_object = frame >= 0
    is_first = (color[:, :, None] == color[:, None, :]) & (is_object & (frame == arrival))[:, None, :]
    log_attention = _log_attention(model, states[:, : batch.num_prefix], batch.position_ids[:, : batch.num_prefix])
    visual = log_attention[:, -labels.shape[2] :, -labels.shape[2] :]
    # Where not all tokens are read, those of the first frame may be missing; and later ones are not seen.
    is_wanted = is_first & torch.ones(is_first.shape[1:], dtype=torch.bool).tril()
    asked = is_object & is_wanted.any(dim=-1)
    return -visual[asked].masked_fill(~is_wanted[asked], -torch.inf).logsumexp(dim=-1).mean()


def _log_attention(
    model: LlavaNextVideoForConditionalGeneration, states: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """(batch, n, n) log probabilities of head HEAD of layer LAYER over the prefix, causal."""
    language = model.model.language_model
    layer = language.layers[LAYER]
    width = layer.self_attn.head_dim
    own = slice(HEAD * width, (HEAD + 1) * width)
    normed = layer.input_layernorm(states)
    query, key = (
        torch.nn.functional.linear(normed, projection.weight[own])[:, None].float()
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *language.rotary_emb(query, positions))
    scores = (query @ key.mT)[:, 0] * layer.self_attn.scaling
    causal = torch.ones(scores.shape[1:], dtype=torch.bool).tril()
    return scores.masked_fill(~causal, -torch.inf).log_softmax(dim=-1)
