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
    """Put an item's kept tokens into its slots of the prompt in another order (`order="selection"`).

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
    """Put the original prompt back in front of the generated tokens.

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


def with_later_columns(source: Tensor, length: int, num_columns: int) -> Tensor:
    """Which full columns stand in the first `num_columns` columns of the shortened rows.

    Args:
        source: (B, L') int64 columns of the prompt.
        length: L, the prompt's full length.
        num_columns: n, at least L'.

    Returns:
        (B, n) int64: the source, then L, L + 1, ...
    """
    later = torch.arange(length, length + num_columns - source.shape[1], device=source.device)
    return torch.cat([source, later.expand(len(source), -1)], dim=-1)


def slots_of(source: Tensor, length: int) -> Tensor:
    """Where each prompt column stands in the shortened rows, the inverse of `source`.

    Args:
        source: (B, L') int64 columns of the prompt.
        length: L.

    Returns:
        (B, L) int64 short columns, `PADDING` for columns that are gone.
    """
    # A column more than there are, for padding to write into.
    slots = torch.full((len(source), length + 1), PADDING, device=source.device)
    numbers = torch.arange(source.shape[1], device=source.device).expand_as(source)
    return slots.scatter(-1, source.masked_fill(source == PADDING, length), numbers)[:, :length]


def take_tokens(per_token: Tensor, columns: Tensor, *, has_features: bool) -> Tensor:
    """Gathers hidden states, rotary embeddings or positions.

    Args:
        per_token: (..., B, n, d), or (..., B, n) without features; a batch of 1 stands for every row.
        columns: (B, n') int64; padding reads column 0.
        has_features: whether a feature dimension follows the columns.

    Returns:
        (..., B, n', d) or (..., B, n').
    """
    columns = columns.clamp(min=0).to(per_token.device)
    rows = torch.arange(len(columns), device=per_token.device)[:, None]
    if per_token.shape[-3 if has_features else -2] == 1:
        rows = torch.zeros_like(rows)
    return per_token[..., rows, columns, :] if has_features else per_token[..., rows, columns]


def take_mask(mask: Tensor, queries: Tensor | None, keys: Tensor) -> Tensor:
    """Gathers rows and columns of an attention mask.

    Args:
        mask: (B, H, q, n) bool (True where attended) or additive float; B and H may be 1.
        queries: (B, q') int64 rows to take, None for all.
        keys: (B, n') int64 columns to take; padding, and columns that the mask does not have, are attended by nobody.

    Returns:
        (B, H, q', n') of the same dtype.
    """
    keys = keys.to(mask.device)
    num_rows, width = mask.shape[-2:]
    queries = torch.arange(num_rows, device=mask.device)[None] if queries is None else queries.to(mask.device)
    rows = torch.arange(len(keys), device=mask.device) if len(mask) > 1 else keys.new_zeros(len(keys))
    per_head_last = mask.movedim(1, -1)
    index = rows[:, None, None], queries.clamp(min=0)[:, :, None], keys.clamp(0, width - 1)[:, None, :]
    gone = (keys < 0) | (keys >= width)
    return per_head_last[index].movedim(-1, 1).masked_fill(gone[:, None, None], nobody(mask.dtype))


def shifted(columns: Tensor, by: int) -> Tensor:
    """Columns (B, n) counted from column `by`; those before it are gone, as padding is."""
    return (columns - by).clamp(min=PADDING).masked_fill(columns == PADDING, PADDING) if by else columns


def take_visual(mask: Tensor, features: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Gathers features that exist for visual tokens only.

    Args:
        mask: (B, n) bool, where the visual tokens stand.
        features: (total, d) of the visual tokens, row by row.
        columns: (B, n') int64 columns to take; padding holds none.

    Returns:
        (B, n') mask and (total', d) features of what is left.
    """
    columns = columns.to(mask.device)
    numbers = mask.flatten().cumsum(0).view_as(mask) - 1
    left = mask.gather(-1, columns.clamp(min=0)) & (columns >= 0)
    return left, features[numbers.gather(-1, columns.clamp(min=0))[left].to(features.device)]


def causal_mask(queries: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
    """Return the mask of a causal layer whose rows are padded.

    Args:
        queries: (B, q) int64 full columns of the queries.
        keys: (B, n) int64 full columns of the keys.
        hidden: (B, q, d) hidden states, for the mask's dtype and device.

    Returns:
        (B, 1, q, n) additive mask.
    """
    attended = (keys[:, None] <= queries[:, :, None]) & (keys != PADDING)[:, None]
    mask = torch.zeros_like(attended, dtype=hidden.dtype).masked_fill(~attended, nobody(hidden.dtype))
    return mask[:, None].to(hidden.device)


def nobody(dtype: torch.dtype) -> float | bool:
    """Return the value of an attention mask where a key is not attended."""
    return False if dtype == torch.bool else torch.finfo(dtype).min
