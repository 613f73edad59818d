"""ToMe in the vision encoder by hand: patches are groups in a list, and every rule is a loop.

Nothing of `divprune.huggingface` is used here. CLIP and SigLIP, whose blocks are computed by plain products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Group:
    """Patches that have become one.

    Attributes:
        place: the patch in whose place it stands.
        members: all of them.
        state: (d,).
    """

    place: int
    members: list[int]
    state: Tensor


def attended(attention: Any, states: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Proportional attention over states (n, d); its output, and the keys, mean over the heads."""
    heads = attention.num_heads

    def split(layer: Any) -> Tensor:
        return layer(states).unflatten(-1, (heads, -1)).transpose(0, 1)

    query, key, value = split(attention.q_proj), split(attention.k_proj), split(attention.v_proj)
    logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + sizes.log()
    mixed = (logits.softmax(dim=-1) @ value).transpose(0, 1).flatten(1)
    return attention.out_proj(mixed), key.mean(dim=0)


def pairs_of(keys: Tensor, count: int, first: int) -> list[tuple[int, int]]:
    """(merged away, taken in) of tokens (n, d), of which the first may be a CLS token, by increasing cost."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    found = []
    for even in range(0, len(unit), 2):
        odd = [number for number in range(1, len(unit), 2) if number >= first]
        if even < first:
            continue
        likeness = [float(unit[even] @ unit[each]) for each in odd]
        best = max(range(len(odd)), key=lambda number: (likeness[number], -number))
        found.append((-likeness[best], even, odd[best]))
    return [(even, odd) for _, even, odd in sorted(found)[:count]]


@torch.no_grad()
def merged_image(tower: Any, states: Tensor, merges: list[int], has_cls_token: bool) -> tuple[list[Group], Tensor]:
    """The groups that `merges` patches a block leave of one image's embedded patches (n, d), and their states."""
    first = int(has_cls_token)
    groups = [Group(number - first, [number - first], state) for number, state in enumerate(states)]
    for layer, count in zip(tower.encoder.layers, merges, strict=False):
        states = torch.stack([group.state for group in groups])
        sizes = torch.tensor([float(len(group.members)) for group in groups])
        change, keys = attended(layer.self_attn, layer.layer_norm1(states), sizes)
        for group, state in zip(groups, states + change, strict=True):
            group.state = state
        gone = []
        for even, odd in pairs_of(keys, count, first):
            source, target = groups[even], groups[odd]
            number, more = len(target.members), len(source.members)
            target.state = (number * target.state + more * source.state) / (number + more)
            target.members += source.members
            gone.append(even)
        groups = [group for number, group in enumerate(groups) if number not in gone]
        for group in groups:
            group.state = group.state + layer.mlp(layer.layer_norm2(group.state))
    groups = groups[first:]
    return groups, torch.stack([group.state for group in groups])


def spread(groups: list[Group], values: Tensor, num_patches: int) -> tuple[Tensor, list[int]]:
    """Values (n, d) of groups at all patches (P, d) that they stand for, and which group stands for each."""
    owner = [next(n for n, group in enumerate(groups) if patch in group.members) for patch in range(num_patches)]
    return values[owner], owner


def shown_tokens(patches: list[int], owners: dict[int, int], places: list[int]) -> list[int]:
    """One token of each group, and every token without a patch.

    Args:
        patches: of each token; -1 for none.
        owners: the group of each patch.
        places: of each group.
    """
    chosen = {number for number, patch in enumerate(patches) if patch < 0}
    for group, place in enumerate(places):
        own = [number for number, patch in enumerate(patches) if patch >= 0 and owners[patch] == group]
        at_home = [number for number in own if patches[number] == place]
        chosen.update((at_home or own)[:1])
    return sorted(chosen)
