"""Models whose vision tower is read: what methods are told of each item besides its tokens.

What was captured of patches becomes values of tokens by the family's own packing of features: tiles put together,
padding cut off, image newline tokens behind rows, frames pooled. Tokens that come from no patch get zeros.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group

from divprune.methods import ItemContext
from divprune.methods.base import TOKEN_AXES, Modality, Need, Piece
from divprune.methods.merging import MergingMethod
from divprune.methods.vision_inputs import VISION_NEEDS
from divprune.vllm_plugin.pruned_model import PrunedModel
from divprune.vllm_plugin.settings import PruningSettings
from divprune.vllm_plugin.vision_capture import TowerCapture, deep_enough


class TowerModel(PrunedModel):
    """Comes in front of a family's model with a CLIP or SigLIP tower; its projector turns each patch into one token."""

    interpolates: bool = False
    """Whether tokens may lie between patches, so that mixtures of what the projector reads are none of tokens."""
    capture: TowerCapture | None = None
    """None for methods that need nothing of the tower."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model, its tower as deep as the method reads, and put hooks there."""
        config: Any = vllm_config.model_config.hf_config
        method = PruningSettings.of(config).method_object()
        if not method.needs & VISION_NEEDS:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            return
        with deep_enough(config, method):
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.capture = TowerCapture(self.vision_tower, self.multi_modal_projector, config, method)

    def encoded(self, kind: Modality, kwargs: Mapping[str, Any]) -> tuple[list[Tensor], list[ItemContext]]:
        """Encode a batch of items, and tell of each what the method needs of the tower."""
        if self.capture is None:
            return super().encoded(kind, kwargs)
        with self.capture.capturing() as captured:
            items, contexts = super().encoded(kind, kwargs)
        tiles = self.num_tiles(kind, len(items), kwargs)
        patches = self._by_patches(captured.on(items[0].device), sum(tiles))
        each = {need: values.split(tiles) for need, values in patches.items()}
        return items, [
            self._with_vision_inputs(context, partial(self.token_values, kind, index, kwargs), own)
            for index, context in enumerate(contexts)
            for own in [{need: values[index] for need, values in each.items()}]
        ]

    @abstractmethod
    def num_tiles(self, kind: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Return how many images the tower reads of each item of a batch: its tiles, or frames."""

    @abstractmethod
    def token_values(self, kind: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Turn values of an item's patches into values of its tokens, as the family packs features.

        Args:
            kind: What the item is.
            index: Its number in the batch.
            kwargs: Of the batch.
            values: (tiles, patches of a tile, c) floating point.

        Returns:
            (M, c); zeros for tokens that come from no patch.
        """

    @staticmethod
    def _by_patches(captured: Mapping[Need, Tensor], num_tiles: int) -> dict[Need, Tensor]:
        """Return what was captured as (tiles, patches of a tile, ...), finite; "has_patch" is one everywhere."""
        # A model whose activations overflow must not take the server down with it.
        found = {need: torch.nan_to_num(values).movedim(TOKEN_AXES[need], 0) for need, values in captured.items()}
        of_tiles = found.pop("cls_features", None)
        patches = {need: values.unflatten(0, (num_tiles, -1)) for need, values in found.items()}
        shape = next(iter(patches.values())).shape[:2]
        if of_tiles is not None:
            patches["cls_features"] = of_tiles.unsqueeze(1).expand(*shape, -1)
        return patches | {"has_patch": next(iter(patches.values())).new_ones(shape)}

    def _with_vision_inputs(
        self, context: ItemContext, of_tokens: Callable[[Tensor], Tensor], patches: Mapping[Need, Tensor]
    ) -> ItemContext:
        """Tell what was captured of one item's patches, as values of its tokens."""
        fields: dict[str, Any] = {}
        for need, values in patches.items():
            flat = of_tokens(values.reshape(*values.shape[:2], -1))
            fields[need] = flat.view(-1, *values.shape[2:]).movedim(0, TOKEN_AXES[need])
        fields["has_patch"] = fields["has_patch"] > 0
        if context.pieces is None and context.modality == "image":
            fields["pieces"] = packed_pieces(fields["has_patch"], isqrt(patches["has_patch"].shape[1]))
        method = self.pruning_method
        if isinstance(method, MergingMethod) and method.merges == "patch_features" and not self.interpolates:
            fields["project"] = self._project
        return replace(context, **fields)

    def _project(self, mixed: Tensor) -> Tensor:
        """Project mixtures (k, d_vision) of what the projector reads, the first rank's on all of them."""
        return self.multi_modal_projector(get_tp_group().broadcast(mixed.contiguous()))


def packed_pieces(has_patch: Tensor, side: int) -> tuple[Piece, ...]:
    """Return the grids of an image that is packed as LLaVA-NeXT's are.

    Args:
        has_patch: (M,) bool; False at image newline tokens.
        side: Tokens along each side of the whole image's grid, the first.

    Returns:
        The whole image's grid, and that of its tiles, whose rows end in a newline token each; where nothing is cut into
        tiles, one newline token follows the first grid.
    """
    whole = Piece(0, side, side, side)
    num_others = len(has_patch) - side**2
    if num_others == 1:
        return (whole,)
    stride = int((~has_patch).nonzero()[0]) - side**2 + 1
    return whole, Piece(side**2, num_others // stride, stride - 1, stride)
