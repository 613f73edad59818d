"""The workers' half: of every encoded image or video, the rows that stay.

vLLM runs the vision encoder by `embed_multimodal` and caches what comes back; the pruned classes let the family's own
method run and keep the method's choice of rows. Where positions count tokens, nothing else is to be done.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any, TypeVar

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from divprune.vllm_plugin.choice import Grid, kept_rows
from divprune.vllm_plugin.families import Modality
from divprune.vllm_plugin.processor import MODALITIES, PrunedInfo, PrunedProcessor, budget_field, pruned_class
from divprune.vllm_plugin.refusals import refuse_unsupported
from divprune.vllm_plugin.settings import PruningSettings, from_integers

FACTORY = "_processor_factory"
Model = TypeVar("Model", bound=type[Any])


def with_pruned_processor(model: Model) -> Model:
    """Register the processor of a pruned model: its family's own, with the mixins in front."""
    family: Any = next(vars(base)[FACTORY] for base in model.__mro__[1:] if FACTORY in vars(base))

    def info(context: Any) -> Any:
        return pruned_class(PrunedInfo, type(family.info(context)))(context)

    def processor(info: Any, dummy_inputs: Any) -> Any:
        own = family.processor(info, dummy_inputs)
        return pruned_class(PrunedProcessor, type(own))(info, dummy_inputs)

    register = MULTIMODAL_REGISTRY.register_processor(processor, info=info, dummy_inputs=family.dummy_inputs)
    return register(model)


class PrunedModel(SupportsMultiModal):
    """Comes in front of a family's model."""

    # It counts the tokens of the tower by those of the prompt.
    supports_tower_connector_lora = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Check the configuration and build the model."""
        refuse_unsupported(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.pruning_method = PruningSettings.of(vllm_config.model_config.hf_config).method_object()

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        """Encode a batch of items of one modality, and keep the chosen rows of each."""
        kind = next((kind for kind in MODALITIES if budget_field(kind) in kwargs), None)
        if kind is None:
            return []
        budgets = kwargs.pop(budget_field(kind)).tolist()
        items = super().embed_multimodal(**kwargs)
        grids = self.grids(kind, [len(item) for item in items], kwargs)
        kept = self._kept(kind, items, budgets, grids)
        return [self.pruned(item, rows, kind, grid) for item, rows, grid in zip(items, kept, grids, strict=True)]

    def _kept(
        self, kind: Modality, items: Sequence[Tensor], budgets: list[list[int]], grids: Sequence[Grid | None]
    ) -> Sequence[Tensor]:
        counts = [from_integers(values).count(len(item)) for values, item in zip(budgets, items, strict=True)]
        kept = [
            kept_rows(self.pruning_method, self.visual_tokens(item), count, kind, grid)
            for item, count, grid in zip(items, counts, grids, strict=True)
        ]
        # Ranks that choose differently would mix two pictures into one prompt, so all follow the first.
        return get_tp_group().broadcast(torch.cat(kept)).split(counts)

    def visual_tokens(self, item: Tensor) -> Tensor:
        """Return the part of an item's encoder output (M, ...) that the language model reads first, (M, d)."""
        return item

    def grids(self, kind: Modality, counts: list[int], kwargs: dict[str, Any]) -> Sequence[Grid | None]:
        """Return the grid that each item's tokens form, or None."""
        return [None] * len(counts)

    def pruned(self, item: Tensor, rows: Tensor, kind: Modality, grid: Grid | None) -> Tensor:
        """Return the chosen rows (k,) of an item."""
        return item[rows]


@with_pruned_processor
class PrunedLlava(PrunedModel, LlavaForConditionalGeneration):
    """LLaVA-1.5: one square of tokens a picture."""

    def grids(self, kind: Modality, counts: list[int], kwargs: dict[str, Any]) -> Sequence[Grid | None]:
        """See `PrunedModel`; with the CLS token among them, tokens form no grid."""
        return [(1, isqrt(count), isqrt(count)) if isqrt(count) ** 2 == count else None for count in counts]
