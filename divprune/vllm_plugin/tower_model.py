"""Models whose vision tower is read: what methods are told of each item besides its tokens.

What was captured of patches becomes values of tokens by the family's own packing of features: tiles put together,
padding cut off, image newline tokens after rows, frames pooled. Tokens that come from no patch get zeros.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group

from divprune.methods import ItemContext, Method
from divprune.methods.item_context import TOKEN_AXES, Modality, Need, Piece
from divprune.methods.merging import MergingMethod
from divprune.methods.vision_inputs import VISION_NEEDS
from divprune.vllm_plugin.pruned_model import PrunedModel
from divprune.vllm_plugin.refusals import allowed_modalities
from divprune.vllm_plugin.settings import PruningSettings
from divprune.vllm_plugin.vision_capture import TowerCapture, deep_enough


class TowerModel(PrunedModel):
    """Comes in front of a family's model whose vision tower can be read."""

    mixes_patches: bool = False
    """Whether the projector turns each patch into one token, so that mixtures of what it reads can be projected."""
    capture: TowerCapture | None = None
    """None for methods that need nothing of the tower."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model, its tower as deep as the method reads, and put hooks there."""
        config: Any = vllm_config.model_config.hf_config
        method = PruningSettings.of(config).method_object()
        with deep_enough(config, method):
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        # vLLM builds no tower where prompts may show nothing.
        if allowed_modalities(vllm_config.model_config):
            self.capture = self.captured_by(method)

    def captured_by(self, method: Method) -> TowerCapture | None:
        """Put hooks on the tower for what a method needs; None if that is nothing."""
        if not method.needs & VISION_NEEDS:
            return None
        return TowerCapture(self.tower(), self.projector(), self.config, method, self.mixes_patches)

    def tower(self) -> nn.Module:
        """Return the vision tower."""
        return self.vision_tower

    def projector(self) -> nn.Module:
        """Return what turns its patches into tokens."""
        return self.multi_modal_projector

    @abstractmethod
    def num_patches(self, modality: Modality, num_items: int, kwargs: Mapping[str, Any]) -> list[int]:
        """Return how many patches of each item of a batch the tower reads, CLS tokens left out."""

    @abstractmethod
    def token_values(self, modality: Modality, index: int, kwargs: Mapping[str, Any], values: Tensor) -> Tensor:
        """Turn values of an item's patches into values of its tokens, as the family packs features.

        Args:
            modality: What the item is.
            index: Its number in the batch.
            kwargs: Of the batch.
            values: (P, c) floating point, in the order in which the tower's layers see the patches.

        Returns:
            (M, c); the mean where several patches make a token, zeros where none does.
        """

    def attending_patches(self, modality: Modality, kwargs: Mapping[str, Any]) -> list[int] | None:
        """Return how many patches see each other, where the tower is given a whole batch as one sequence."""
        return None

    def pieces(self, context: ItemContext, has_patch: Tensor) -> tuple[Piece, ...] | None:
        """Return the grids that an item's tokens form; `has_patch` (M,) bool tells newline tokens from others."""
        return context.pieces

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> tuple[list[Tensor], list[ItemContext]]:
        """Encode a batch of items, and tell of each what the method needs of the tower."""
        if self.capture is None:
            return super().encoded(modality, kwargs)
        with self.capture.capturing(self.attending_patches(modality, kwargs)) as captured:
            items, contexts = super().encoded(modality, kwargs)
        counts = self.num_patches(modality, len(items), kwargs)
        # A model whose activations overflow must not take the server down with it.
        found = {
            need: torch.nan_to_num(values).movedim(TOKEN_AXES[need], 0)
            for need, values in _expanded(captured.on(items[0].device), sum(counts)).items()
        }
        by_patches = {need: values.split(_parts(counts, len(values))) for need, values in found.items()}
        return items, [
            self._with_vision_inputs(
                context,
                count,
                partial(self.token_values, modality, index, kwargs),
                {need: values[index] for need, values in by_patches.items()},
            )
            for index, (context, count) in enumerate(zip(contexts, counts, strict=True))
        ]

    def _with_vision_inputs(
        self,
        context: ItemContext,
        num_patches: int,
        of_tokens: Callable[[Tensor], Tensor],
        captured: Mapping[Need, Tensor],
    ) -> ItemContext:
        """Tell what was captured of one item's patches, as values of its tokens."""
        fields: dict[str, Any] = {}
        for need, values in captured.items():
            is_of_tokens = len(values) < num_patches
            flat = values.flatten(1) if is_of_tokens else of_tokens(values.flatten(1))
            fields[need] = flat.unflatten(1, values.shape[1:]).movedim(0, TOKEN_AXES[need])
        device = next(iter(captured.values())).device
        fields["has_patch"] = of_tokens(torch.ones(num_patches, 1, device=device))[:, 0] > 0
        fields["pieces"] = self.pieces(context, fields["has_patch"])
        method = self.pruning_method
        if isinstance(method, MergingMethod) and method.merges == "patch_features" and self.mixes_patches:
            fields["project"] = self._project
        return replace(context, **fields)

    def _project(self, mixed: Tensor) -> Tensor:
        """Project mixtures (k, d_vision) of what the projector reads, the first rank's on all of them."""
        return self.projector()(get_tp_group().broadcast(mixed.contiguous()))


def _expanded(captured: Mapping[Need, Tensor], num_patches: int) -> dict[Need, Tensor]:
    """Repeat what was captured of each tile's CLS token for each of its patches."""
    features = captured.get("cls_features")
    if features is None:
        return dict(captured)
    return {**captured, "cls_features": features.repeat_interleave(num_patches // len(features), dim=0)}


def _parts(num_patches: Sequence[int], total: int) -> list[int]:
    """Share `total` values among items in proportion to their patches: a projector may be given several as one."""
    return [count * total // sum(num_patches) for count in num_patches]
