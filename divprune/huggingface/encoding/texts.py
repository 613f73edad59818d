"""The text that asks about the pictures: which columns of the prompt it stands in."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.encoding.encode import VisualItem
from divprune.huggingface.families.registry import Family


def text_columns(
    model: PreTrainedModel,
    family: Family,
    items: Sequence[VisualItem],
    input_ids: Tensor,
    attention_mask: Tensor | None,
) -> dict[int, Tensor]:
    """For each row with pictures, (T,) int64 ascending columns of the text after the last one, or of all if none.

    Args:
        model: the model.
        family: its family.
        items: the call's images and videos.
        input_ids: (B, L).
        attention_mask: (B, L); None if nothing is padded.
    """
    is_text = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool().clone()
    for kind in family.kinds:
        is_text &= input_ids != getattr(model.config, family.placeholders[kind])
    columns = {}
    for row in sorted({item.row for item in items}):
        last = max(int(item.columns[-1]) for item in items if item.row == row)
        everything = is_text[row].nonzero().squeeze(1)
        after = everything[everything > last]
        columns[row] = after if len(after) else everything
    return columns
