"""Shortening a prompt and restoring it: pure tensor functions, no model in sight.

Sits between selection and the language model: given which prompt columns stay, every per-token tensor (ids, masks,
type ids, labels, positions) is gathered with one index, `source`; generated sequences get their original prompt back.
"""

import torch
from torch import Tensor

PADDING = -1


def source_columns(keep: Tensor, attention_mask: Tensor) -> Tensor:
    """Which original column stands in each column of the shortened prompt.

    Padding is stripped and laid anew on the side where it was, so that a batch is as short as its longest row.
    If nothing is dropped, padding included, the prompt keeps its length.

    Args:
        keep: (B, L) bool, False at the placeholders of dropped visual tokens.
        attention_mask: (B, L) int or bool, zero at padding.

    Returns:
        (B, L') int64 columns of the original prompt, `PADDING` where the shortened row is padded.
    """
    batch_size, length = keep.shape
    columns = torch.arange(length, device=keep.device).expand(batch_size, -1)
    if bool(keep.all()):
        return columns
    attended = attention_mask.bool()
    leading = attended.long().cumsum(-1) == 0
    trailing = attended.long().flip(-1).cumsum(-1).flip(-1) == 0
    stays = keep & ~leading & ~trailing
    short_length = int(stays.sum(-1).max())
    on_the_right = bool(trailing.any())
    # A stable sort on "does it stay" moves the kept columns to one end without changing their order.
    order = torch.sort(stays.long(), dim=-1, descending=on_the_right, stable=True).indices
    order = order[:, :short_length] if on_the_right else order[:, length - short_length :]
    return torch.where(stays.gather(-1, order), order, PADDING)


def take_columns(per_token: Tensor, source: Tensor, fill: int) -> Tensor:
    """Gathers a per-token tensor into the shortened prompt.

    Args:
        per_token: (..., B, L) tensor, or (..., 1, L) that broadcasts over the batch (position ids).
        source: (B, L') int64 from `source_columns`.
        fill: value at padding.

    Returns:
        (..., B, L') tensor of the same dtype.
    """
    expanded = per_token.expand(*per_token.shape[:-2], source.shape[0], per_token.shape[-1])
    index = source.clamp(min=0).expand(*per_token.shape[:-2], *source.shape)
    return expanded.gather(-1, index).masked_fill(source == PADDING, fill)


def reorder_columns(source: Tensor, row: int, slots: Tensor, columns: Tensor) -> Tensor:
    """Puts an item's kept tokens into its slots of the prompt in another order (`order="selection"`).

    Args:
        source: (B, L') int64 from `source_columns`.
        row: the item's row of the batch.
        slots: (k,) int64 original columns of the item's kept tokens, ascending.
        columns: (k,) int64 the same columns in the order in which the tokens shall be read.

    Returns:
        A copy of `source` in which the slot of `slots[i]` reads `columns[i]`.
    """
    source = source.clone()
    source[row, torch.isin(source[row], slots)] = columns
    return source


def compact_positions(attention_mask: Tensor) -> Tensor:
    """Positions 0..n-1 over the attended tokens of each row, 0 at padding.

    Args:
        attention_mask: (B, L') int or bool.

    Returns:
        (B, L') int64.
    """
    positions = attention_mask.long().cumsum(-1) - 1
    return positions.masked_fill(attention_mask == 0, 0)


def restore_sequences(sequences: Tensor, prompt_ids: Tensor, short_length: int) -> Tensor:
    """Puts the original prompt back in front of the generated tokens.

    Args:
        sequences: (B * n, L' + new) int64 as generated from the shortened prompt, n sequences per row.
        prompt_ids: (B, L) int64, the original prompt.
        short_length: L'.

    Returns:
        (B * n, L + new) int64.
    """
    prompt = prompt_ids.to(sequences.device)
    prompt = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
    return torch.cat([prompt, sequences[:, short_length:]], dim=-1)
