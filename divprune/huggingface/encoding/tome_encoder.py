"""ToMe inside CLIP and SigLIP: blocks of the vision encoder that merge similar patches, as `TomeEncoder` says.

```
block                     states (n images, CLS + P, d)
  attention               counts a patch as often as it stands for one: log(size) is added to its logits
  merge                   even places choose among odd ones; the r most similar pairs become averages
  feed-forward            fewer patches from here on, through every later block
projector                 one output a patch that is left; copied to all places that it stands for
```

So the model packs tiles and counts tokens as ever, and of the copies one is told apart: `encoded_tokens`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from divprune.encoder_options import TomeEncoder
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.families.vision_towers import NO_PATCH, PatchTower, feature_layers, tower_of
from divprune.huggingface.wrapping import replaced
from divprune.methods.item_context import Modality
from divprune.selection.distances import unit_rows

_BLOCKS = (CLIPEncoderLayer, SiglipEncoderLayer)
_ATTENTION = ("eager", "sdpa")


@dataclass
class _Patches:
    """What the patches of one pass have become.

    Attributes:
        places: (n, P') int64, the patch in whose place each of those that are left stands, ascending; CLS left out.
        sizes: (n, P') how many patches each stands for, floating point.
        owners: (n, P) int64, which of those that are left stands for each patch.
    """

    places: Tensor
    sizes: Tensor
    owners: Tensor

    @classmethod
    def whole(cls, num_images: int, num_patches: int, like: Tensor) -> "_Patches":
        places = torch.arange(num_patches, device=like.device).repeat(num_images, 1)
        return cls(places, torch.ones_like(places, dtype=_accurate(like)), places)

    def merge(self, states: Tensor, keys: Tensor, count: int, first: int) -> Tensor:
        """Merge `count` pairs.

        Args:
            states: (n, first + P', d).
            keys: (n, P', d_head), the metric.
            count: pairs of each image.
            first: number of CLS tokens, which stay.

        Returns:
            (n, first + P' - count, d) states.
        """
        source, target = matched(keys, count, first)
        patches, sizes = states[:, first:], self.sizes
        weighted = patches.to(sizes.dtype) * sizes.unsqueeze(-1)
        weighted = weighted.scatter_add(1, _rows(target, weighted), weighted.gather(1, _rows(source, weighted)))
        sizes = sizes.scatter_add(1, target, sizes.gather(1, source))
        stays = torch.ones_like(sizes, dtype=torch.bool).scatter(1, source, False)
        number = stays.cumsum(dim=1) - 1
        number = number.scatter(1, source, number.gather(1, target))
        self.owners = number.gather(1, self.owners)
        left = stays.nonzero()[:, 1].view(len(states), -1)
        self.places, self.sizes = self.places.gather(1, left), sizes.gather(1, left)
        averages = weighted.gather(1, _rows(left, weighted)) / self.sizes.unsqueeze(-1)
        return torch.cat([states[:, :first], averages.to(states.dtype)], dim=1)


def matched(keys: Tensor, count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Pair patches: of those at even places the `count` that are most similar to one at an odd place.

    Args:
        keys: (n, P, d).
        count: pairs of each image, at most P // 2.
        first: number of tokens before the patches, which count as places.

    Returns:
        (n, count) int64 each: indices of the patches that are merged away, and of those that take them in. Ties go to
        the lowest index.
    """
    unit = unit_rows(keys)
    even, odd = unit[:, first % 2 :: 2], unit[:, (first + 1) % 2 :: 2]
    best = (even @ odd.mT).max(dim=-1)
    chosen = best.values.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    partner = best.indices.gather(1, chosen)
    return 2 * chosen + first % 2, 2 * partner + (first + 1) % 2


@dataclass
class MergedPatches:
    """What was merged in one pass of the encoder.

    Attributes:
        patches: of the pass; None before it.
        keys: of the block that runs, (n, CLS + P', heads * d_head).
    """

    patches: _Patches | None = None
    keys: list[Tensor] = field(default_factory=list)


@contextmanager
def merging_patches(adapter: ModelAdapter, option: TomeEncoder) -> Iterator[MergedPatches]:
    """Merge patches in the vision encoder; the model is as before on exit."""
    model, tower = adapter.model, require_mergeable(adapter, option)
    merged, first = MergedPatches(), int(tower.has_cls_token(model))
    layers: list[Any] = list(tower.layers(model))
    counts = option.merges(_blocks_read(adapter, len(layers)))

    def begin(*_: Any) -> None:
        merged.patches = None

    def keep_keys(_: nn.Module, __: Any, output: Tensor) -> None:
        merged.keys[:] = [output]

    def spread(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        patches = merged.patches
        if patches is None or output.shape[1] != patches.places.shape[1]:
            raise PruningError(
                f"encoder option {option.name!r} needs a projector that is given all patches of the encoder, and none "
                "besides"
            )
        return output.gather(1, _rows(patches.owners, output))

    with ExitStack() as stack:
        stack.callback(tower.of(model).register_forward_pre_hook(begin).remove)
        for block, layer in enumerate(layers):
            count = counts[block] if block < len(counts) else None
            stack.enter_context(replaced(layer, "forward", partial(_run_block, layer, merged, count, first)))
            stack.callback(layer.self_attn.k_proj.register_forward_hook(keep_keys).remove)
        stack.callback(tower.projector_of(model).register_forward_hook(spread).remove)
        yield merged


def encoded_tokens(
    adapter: ModelAdapter, merged: MergedPatches, modality: Modality, inputs: Mapping[str, Any], option: TomeEncoder
) -> Tensor:
    """Tell, behind a pass, which of all tokens of the encoder's output stand for themselves; the rest are copies.

    Returns:
        (n,) int64, ascending: one token for each patch that is left, in the place that it has taken if that is in the
        image, else in the first one that it stands for; and those that come from no patch (image newline tokens).
    """
    tower, patches = require_mergeable(adapter, option), merged.patches
    if patches is None:
        raise PruningError(f"encoder option {option.name!r} met a model that did not run its vision encoder")
    num_images, num_left = patches.places.shape
    num_patches = patches.owners.numel()
    offset = torch.arange(num_images, device=patches.places.device).unsqueeze(1)
    owners = (patches.owners + offset * num_left).flatten()
    places = (patches.places + offset * patches.owners.shape[1]).flatten()
    patch_of = tower.patches(adapter.model, inputs, modality, num_patches)[:, 0].to(owners.device)
    tokens = torch.arange(len(patch_of), device=owners.device)
    has_patch = patch_of != NO_PATCH
    owner = owners[patch_of[has_patch]]
    # The lowest number wins: a token in the owner's own place before all others.
    elsewhere = places[owner] != patch_of[has_patch]
    number = tokens[has_patch] + elsewhere * len(tokens)
    best = torch.full_like(places, 2 * len(tokens)).scatter_reduce(0, owner, number, "amin")
    shown = best[best < 2 * len(tokens)] % len(tokens)
    return torch.cat([shown, tokens[~has_patch]]).sort().values


def require_mergeable(adapter: ModelAdapter, option: TomeEncoder) -> PatchTower:
    """Return the vision encoder of a model whose patches can be merged.

    Raises:
        UnsupportedModelError: they cannot.
        ValueError: not so many of them.
    """
    model: Any = adapter.model
    tower = tower_of(model)
    name = f"encoder option {option.name!r}"
    layers = [] if tower is None else list(tower.layers(model))
    if (
        not isinstance(tower, PatchTower)
        or not tower.projects_patches
        or not all(isinstance(layer, _BLOCKS) for layer in layers)
    ):
        raise UnsupportedModelError(
            f"{name} merges patches of CLIP and SigLIP encoders whose projector makes a token of each patch, as in "
            f"llava, llava_next and paligemma; that of this {adapter.family.name!r} model is another"
        )
    vision = model.config.vision_config
    implementation = vision._attn_implementation
    if implementation not in _ATTENTION:
        raise UnsupportedModelError(
            f"{name} adds to the logits of the vision encoder's attention, which {implementation!r} does not take; "
            "load the model with attn_implementation='sdpa'"
        )
    option.patches_left((vision.image_size // vision.patch_size) ** 2, _blocks_read(adapter, len(layers)))
    return tower


def require_usual_pass(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> None:
    """Refuse a call whose encoder would not run as the configuration says, or whose blocks would run again later.

    Raises:
        PruningError: the call asks for another layer of the encoder, or gradient checkpointing is on.
    """
    model: Any = adapter.model
    for name in ("vision_feature_layer", "vision_feature_layers", "vision_feature_select_strategy"):
        own = getattr(model.config, name, None)
        if inputs.get(name) is not None and inputs[name] != own:
            raise PruningError(
                f"{name} must be that of the model's configuration, {own!r}, while patches are merged in the encoder, "
                f"got {inputs[name]!r}"
            )
    tower = tower_of(model)
    layers = [] if tower is None else list(tower.layers(model))
    if model.training and any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        raise PruningError("gradient checkpointing must be off while patches are merged in the encoder")


def _blocks_read(adapter: ModelAdapter, num_layers: int) -> int:
    """Count the blocks up to the one whose states the projector reads.

    Raises:
        UnsupportedModelError: it reads several.
    """
    layer = feature_layers(adapter.model)
    if layer is None:
        return num_layers
    if not isinstance(layer, int):
        raise UnsupportedModelError(
            f"encoder option 'tome' needs a projector that reads one layer of the vision encoder, not {layer}"
        )
    return layer if layer >= 0 else num_layers + 1 + layer


def _run_block(
    layer: Any,
    merged: MergedPatches,
    count: int | None,
    first: int,
    original: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Run a block of CLIP or SigLIP; `count` is None behind the one that is read, where nothing need be computed."""
    if count is None:
        return hidden_states
    if merged.patches is None:
        merged.patches = _Patches.whole(len(hidden_states), hidden_states.shape[1] - first, hidden_states)
    patches = merged.patches
    mask = _proportional(patches, hidden_states, first)
    attended, _ = layer.self_attn(hidden_states=layer.layer_norm1(hidden_states), attention_mask=mask, **options)
    states = hidden_states + attended
    if count:
        heads = merged.keys[0][:, first:].unflatten(-1, (layer.self_attn.num_heads, -1))
        states = patches.merge(states, heads.to(patches.sizes.dtype).mean(dim=2), count, first)
    merged.keys.clear()
    result: Tensor = states + layer.mlp(layer.layer_norm2(states))
    return result


def _proportional(patches: _Patches, states: Tensor, first: int) -> Tensor | None:
    """Return what is added to the logits (n, 1, 1, CLS + P'), None while every patch stands for itself."""
    if patches.places.shape == patches.owners.shape:
        return None
    return nn.functional.pad(patches.sizes.log(), (first, 0)).to(states.dtype)[:, None, None]


def _rows(indices: Tensor, like: Tensor) -> Tensor:
    """Repeat indices (n, k) along the last axis of (n, P, d)."""
    return indices.unsqueeze(-1).expand(-1, -1, like.shape[-1])


def _accurate(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32
