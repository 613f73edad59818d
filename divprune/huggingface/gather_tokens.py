"""Shortening a prompt and restoring it: pure tensor functions, no model in sight.

Sits between selection and the language model: given which tokens stay, every per-token tensor (ids, masks,
type ids, labels, positions) is gathered with one index; generated sequences get their original prompt back.
"""

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.selection.result import PADDING as PADDING


def gather_index_of(keep: Tensor, attention_mask: Tensor) -> Tensor:
    """Index the tokens that stay: which original token stands at each place of the pruned prompt.

    Padding is stripped and laid anew on the side where it was, so that a batch is as short as its longest row.
    If nothing is dropped, padding included, the prompt keeps its length.

    Args:
        keep: (B, L) bool, False at the placeholders of dropped visual tokens.
        attention_mask: (B, L) int or bool, zero at padding.

    Returns:
        (B, L') int64 indices of the original prompt, `PADDING` where the pruned row is padded.
    """
    batch_size, length = keep.shape
    indices = torch.arange(length, device=keep.device).expand(batch_size, -1)
    if bool(keep.all()):
        return indices
    attended = attention_mask.bool()
    leading = attended.long().cumsum(-1) == 0
    trailing = attended.long().flip(-1).cumsum(-1).flip(-1) == 0
    stays = keep & ~leading & ~trailing
    pruned_length = int(stays.sum(-1).max())
    on_the_right = bool(trailing.any())
    # A stable sort on "does it stay" moves what is kept to one end without changing their order.
    order = torch.sort(stays.long(), dim=-1, descending=on_the_right, stable=True).indices
    order = order[:, :pruned_length] if on_the_right else order[:, length - pruned_length :]
    return torch.where(stays.gather(-1, order), order, PADDING)


def gather_tokens(per_token: Tensor, gather_index: Tensor, fill: int) -> Tensor:
    """Gather a per-token tensor into the pruned prompt.

    Args:
        per_token: (..., B, L) tensor, or (..., 1, L) that broadcasts over the batch (position ids).
        gather_index: (B, L') int64 from `gather_index_of`.
        fill: value at padding.

    Returns:
        (..., B, L') tensor of the same dtype.
    """
    expanded = per_token.expand(*per_token.shape[:-2], gather_index.shape[0], per_token.shape[-1])
    index = gather_index.clamp(min=0).expand(*per_token.shape[:-2], *gather_index.shape)
    return expanded.gather(-1, index).masked_fill(gather_index == PADDING, fill)


def reorder_tokens(gather_index: Tensor, row: int, places: Tensor, indices: Tensor) -> Tensor:
    """Put an item's kept tokens into its places of the prompt in another order (`order="selection"`).

    Args:
        gather_index: (B, L') int64 from `gather_index_of`.
        row: the item's row of the batch.
        places: (k,) int64 original indices of the item's kept tokens, ascending.
        indices: (k,) int64 the same indices in the order in which the tokens shall be read.

    Returns:
        A copy of `gather_index` in which the place of `places[i]` reads `indices[i]`.
    """
    gather_index = gather_index.clone()
    gather_index[row, torch.isin(gather_index[row], places)] = indices
    return gather_index


def places_of(indices: Tensor, gather_index: Tensor, length: int) -> Tensor:
    """Find tokens of the original prompt in the pruned one.

    Args:
        indices: (n,) int64; negative ones count from the end.
        gather_index: (B, L') int64 from `gather_index_of`.
        length: L.

    Returns:
        (n,) int64 places in the pruned prompt.

    Raises:
        PruningError: one of them was dropped, or they stand at different places of different rows.
    """
    indices = torch.where(indices < 0, indices + length, indices).to(gather_index.device)
    matches = gather_index[:, :, None] == indices
    if not bool(matches.any(dim=1).all()):
        lost = indices[~matches.any(dim=1).all(dim=0)].tolist()
        raise PruningError(f"logits_to_keep must name tokens that stay in every row, got {lost}, dropped or padding")
    places = matches.long().argmax(dim=1)
    if bool((places != places[:1]).any()):
        raise PruningError(
            "logits_to_keep must be an integer, or name tokens with as many kept before them in every row; call rows "
            "one by one, or take all logits and pruning.last.spread(logits)"
        )
    return places[0]


def compact_positions(attention_mask: Tensor) -> Tensor:
    """Positions 0..n-1 over the attended tokens of each row, 0 at padding.

    Args:
        attention_mask: (B, L') int or bool.

    Returns:
        (B, L') int64.
    """
    positions = attention_mask.long().cumsum(-1) - 1
    return positions.masked_fill(attention_mask == 0, 0)


def restore_sequences(sequences: Tensor, prompt_ids: Tensor, pruned_length: int) -> Tensor:
    """Put the original prompt back in front of the generated tokens.

    Args:
        sequences: (B * n, L' + new) int64 as generated from the pruned prompt, n sequences per row.
        prompt_ids: (B, L) int64, the original prompt.
        pruned_length: L'.

    Returns:
        (B * n, L + new) int64.
    """
    prompt = prompt_ids.to(sequences.device)
    prompt = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
    return torch.cat([prompt, sequences[:, pruned_length:]], dim=-1)


def with_later_tokens(gather_index: Tensor, length: int, num_tokens: int) -> Tensor:
    """Tell which full indices stand in the first `num_tokens` indices of the pruned rows.

    Args:
        gather_index: (B, L') int64 indices of the prompt.
        length: L, the prompt's full length.
        num_tokens: n, at least L'.

    Returns:
        (B, n) int64: the gather_index, then L, L + 1, ...
    """
    later = torch.arange(length, length + num_tokens - gather_index.shape[1], device=gather_index.device)
    return torch.cat([gather_index, later.expand(len(gather_index), -1)], dim=-1)


def pruned_index_of(gather_index: Tensor, length: int) -> Tensor:
    """Locate where each prompt token stands in the pruned rows, the inverse of `gather_index`.

    Args:
        gather_index: (B, L') int64 indices of the prompt.
        length: L.

    Returns:
        (B, L) int64 pruned indices, `PADDING` for indices that are gone.
    """
    # An entry more than there are, for padding to write into.
    pruned_index = torch.full((len(gather_index), length + 1), PADDING, device=gather_index.device)
    numbers = torch.arange(gather_index.shape[1], device=gather_index.device).expand_as(gather_index)
    return pruned_index.scatter(-1, gather_index.masked_fill(gather_index == PADDING, length), numbers)[:, :length]


def gather_features(per_token: Tensor, indices: Tensor, *, has_features: bool) -> Tensor:
    """Gather hidden states, rotary embeddings or positions.

    Args:
        per_token: (..., B, n, d), or (..., B, n) without features; a batch of 1 stands for every row.
        indices: (B, n') int64; padding reads token 0.
        has_features: whether a feature dimension follows the indices.

    Returns:
        (..., B, n', d) or (..., B, n').
    """
    indices = indices.clamp(min=0).to(per_token.device)
    rows = torch.arange(len(indices), device=per_token.device)[:, None]
    if per_token.shape[-3 if has_features else -2] == 1:
        rows = torch.zeros_like(rows)
    return per_token[..., rows, indices, :] if has_features else per_token[..., rows, indices]


def gather_mask(mask: Tensor, queries: Tensor | None, keys: Tensor) -> Tensor:
    """Gather queries and keys of an attention mask.

    Args:
        mask: (B, H, q, n) bool (True where attended) or additive float; B and H may be 1.
        queries: (B, q') int64 rows to take, None for all.
        keys: (B, n') int64 indices to take; padding, and indices that the mask does not have, are attended by nobody.

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


def shifted(indices: Tensor, by: int) -> Tensor:
    """Count indices (B, n) from token `by`; those before it are gone, as padding is."""
    return (indices - by).clamp(min=PADDING).masked_fill(indices == PADDING, PADDING) if by else indices


def gather_visual(mask: Tensor, features: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Gather features that exist for visual tokens only.

    Args:
        mask: (B, n) bool, where the visual tokens stand.
        features: (total, d) of the visual tokens, row by row.
        indices: (B, n') int64 indices to take; padding holds none.

    Returns:
        (B, n') mask and (total', d) features of what is left.
    """
    indices = indices.to(mask.device)
    numbers = mask.flatten().cumsum(0).view_as(mask) - 1
    left = mask.gather(-1, indices.clamp(min=0)) & (indices >= 0)
    return left, features[numbers.gather(-1, indices.clamp(min=0))[left].to(features.device)]


def causal_mask(queries: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
    """Return the mask of a causal layer whose rows are padded.

    Args:
        queries: (B, q) int64 full indices of the queries.
        keys: (B, n) int64 full indices of the keys.
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
