"""transformers' flash attention path on a CPU: all of its code but the kernels, which plain products stand in for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel, modeling_flash_attention_utils
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

NAME = "flash_on_cpu"


def use_flash_attention(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the LLM of a model attend as under flash attention; the vision tower stays as it is."""
    pad_and_unpad = (modeling_flash_attention_utils._pad_input, modeling_flash_attention_utils._unpad_input)
    kernels = (_attend, _attend_to_own_sequence, None, *pad_and_unpad)
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", lambda *_, **__: kernels)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    AttentionInterface.register(NAME, flash_attention_forward)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    model.get_decoder().config._attn_implementation = NAME


def _attend(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None = None, causal: bool = False) -> Tensor:
    """`flash_attn_func`: (B, n, heads, d) each; the last query sees all keys."""
    groups = q.shape[2] // k.shape[2]
    queries, keys, values = (tensor.transpose(1, 2) for tensor in (q, k, v))
    keys, values = (tensor.repeat_interleave(groups, dim=1) for tensor in (keys, values))
    scores = queries @ keys.transpose(-1, -2) * (softmax_scale or q.shape[-1] ** -0.5)
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(hidden, -torch.inf)
    return (scores.softmax(dim=-1) @ values).transpose(1, 2)


def _attend_to_own_sequence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """`flash_attn_varlen_func`: sequences one after the other, (n, heads, d)."""
    ends: Callable[[Tensor], list[int]] = lambda borders: borders[1:-1].tolist()  # noqa: E731
    parts = zip(
        q.tensor_split(ends(cu_seqlens_q)), *(each.tensor_split(ends(cu_seqlens_k)) for each in (k, v)), strict=True
    )
    return torch.cat([_attend(*(part[None] for part in each), softmax_scale, causal)[0] for each in parts])
