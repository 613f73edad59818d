"""The workers' half: of every encoded image or video, the rows that stay.

vLLM runs the vision encoder by `embed_multimodal` and caches what comes back; the pruned classes let the family's own
method run and keep the method's selection of rows. Where positions count tokens, nothing else is to be done.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.multimodal import MULTIMODAL_REGISTRY

from divprune.methods import ItemContext, Method
from divprune.methods.grids import Grid, pieces_of_grid
from divprune.methods.item_context import Modality
from divprune.methods.kept_tokens import Kept, has_other_tokens, keep_patches, keep_tokens
from divprune.vllm_plugin.metrics import SelectionTimes
from divprune.vllm_plugin.processor import MODALITIES, PrunedInfo, PrunedProcessor, budget_field, pruned_class
from divprune.vllm_plugin.refusals import refuse_unsupported
from divprune.vllm_plugin.settings import from_integers

FACTORY = "_processor_factory"
ModelClass = TypeVar("ModelClass", bound=type[Any])


def with_pruned_processor(model: ModelClass) -> ModelClass:
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

    # Its adapters would count the tokens of the tower by those of the prompt.
    supports_tower_connector_lora = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Check the configuration and build the model."""
        settings = refuse_unsupported(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.pruning_method = settings.method_object()
        self.selection_times = SelectionTimes()

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """Encode a batch of items of one modality, and keep the selected rows of each."""
        modality = next((modality for modality in MODALITIES if budget_field(modality) in kwargs), None)
        if modality is None:
            return []
        budgets = kwargs.pop(budget_field(modality)).tolist()
        items, contexts = self.encoded(modality, kwargs)
        counts = [from_integers(values).count(len(item)) for values, item in zip(budgets, items, strict=True)]
        started = time.perf_counter()
        kept = [
            kept_tokens(self.pruning_method, self.visual_tokens(item), count, context)
            for item, count, context in zip(items, counts, contexts, strict=True)
        ]
        if get_tp_group().is_first_rank:
            self.selection_times.add(modality, len(items), time.perf_counter() - started)
        # Ranks that select differently would mix two images into one prompt, so all follow the first.
        rows = get_tp_group().broadcast(torch.cat([each.order for each in kept])).split(counts)
        merged = [each.merged for each in kept if each.merged is not None]
        if merged:
            values = get_tp_group().broadcast(torch.cat(merged)).split(counts)
            for item, places, own in zip(items, rows, values, strict=True):
                self.visual_tokens(item)[places] = own
        return self.finished(modality, items, rows, kwargs)

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> tuple[list[Tensor], list[ItemContext]]:
        """Encode a batch of items: what the encoder makes of each, (M, d), and what is known of its tokens besides."""
        # LLaVA-OneVision hands over videos of different lengths as (1, M, d).
        items = [item.flatten(0, -2) for item in super().embed_multimodal(**kwargs)]
        grids = self.grids(modality, [len(item) for item in items], kwargs)
        return items, [
            ItemContext(modality=modality, grid=grid, pieces=None if grid is None else pieces_of_grid(grid))
            for grid in grids
        ]

    def visual_tokens(self, item: Tensor) -> Tensor:
        """Return the part of an item's encoder output that the language model reads as its tokens, (M, d)."""
        return item

    def grids(self, modality: Modality, counts: Sequence[int], kwargs: Mapping[str, Any]) -> list[Grid | None]:
        """Return the grid that each item's tokens form, or None."""
        return [None] * len(counts)

    def finished(
        self, modality: Modality, items: Sequence[Tensor], kept: Sequence[Tensor], kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        """Return what goes into the encoder cache of each item, given the rows (k,) that stay."""
        return [item[rows] for item, rows in zip(items, kept, strict=True)]


def kept_tokens(method: Method, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Kept:
    """Choose the tokens of one item; what an item keeps depends on nothing but the item.

    An item is encoded alone or with others, now or when it has left the encoder cache. So `ItemContext.index` is always
    0, and random draws differ between items by their size only.

    Args:
        method: The method.
        visual_tokens: (M, d) after the projector.
        num_keep: k, between 1 and M.
        context: What is known of the tokens besides.

    Returns:
        (k,) int64, ascending, and what a merging method makes of them.
    """

    def keep(tokens: Tensor, own: ItemContext) -> Kept:
        return keep_tokens(method, tokens, min(num_keep, len(tokens)), own)

    # A model whose activations overflow must not take the server down with it.
    finite = torch.nan_to_num(visual_tokens)
    has_others = has_other_tokens(context)
    kept = keep_patches(keep, finite, context, num_keep) if has_others else keep(finite, context)
    ascending = kept.order.sort()
    return Kept(ascending.values, None if kept.merged is None else kept.merged[ascending.indices])
