"""One call of a pruned model, read: prompt, mask, cache, and whether images or videos come with it.

```
what the cache holds               is_fresh  past  dropped   the call
nothing                            yes       -     -         a new prompt
what an unpruned model filled      -         -     -         text only: passed on; images are refused before the LLM
a prompt pruned before the LLM     -         yes   -         whole_conversation: past and new tokens, one pruned prompt
a prompt pruned inside the LLM     -         -     yes       text: hooks cut masks (`continuing`); images: LayerPruning
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.input_pruning.cache import Past, is_continued, past_of
from divprune.huggingface.input_pruning.checks import require_no_placeholders
from divprune.huggingface.layer_pruning.state import DroppedPrompt, dropped_prompt, full_length
from divprune.huggingface.model_inputs import NAMES, cache_in, has_visual_inputs, with_installed_name
from divprune.huggingface.report import CACHED_ITEMS, ItemReport


@dataclass(frozen=True)
class Call:
    """A call of `generate` or `forward`.

    Attributes:
        adapter: the model.
        inputs: its arguments by name.
        attention_mask: (B, L) over the prompt, or over the whole conversation where the cache holds some of it; None
            where the call has neither ids nor a mask, or a `forward` leaves the mask out.
        cache: the key/value cache that it continues from or fills; None without one.
        has_media: whether images or videos come with it, as pixels or encoded.
        padding_id: stands at padding in ids.
        earlier_items: what was reported of the images and videos in the cache.
    """

    adapter: ModelAdapter
    inputs: dict[str, Any]
    attention_mask: Tensor | None
    cache: Any
    has_media: bool
    padding_id: int
    earlier_items: tuple[ItemReport, ...] = ()

    @classmethod
    def of_generate(cls, adapter: ModelAdapter, arguments: Mapping[str, Any]) -> "Call":
        """Read a call of `generate`.

        Raises:
            PruningError: a way of generating that would be silently wrong, or a mask of another shape.
        """
        inputs = with_installed_name(arguments)
        cache, has_media = cache_in(inputs), has_visual_inputs(inputs)
        if adapter.generation_setting(inputs, "cache_implementation") == "paged":
            raise PruningError("cache_implementation must not be 'paged' while the model is pruned: it takes no images")
        if inputs.get("assistant_model") is not None:
            raise PruningError("assistant_model must be None while the model is pruned: it would see another prompt")
        if "inputs" in inputs:
            inputs["input_ids"] = inputs.pop("inputs")
        if has_media and adapter.generation_setting(inputs, "prompt_lookup_num_tokens"):
            # transformers would propose the prompt's placeholders, which no answer may hold.
            suppressed = adapter.generation_setting(inputs, "suppress_tokens") or []
            inputs["suppress_tokens"] = sorted({*suppressed, *adapter.placeholder_ids})
        padding_id = adapter.padding_id
        return cls(adapter, inputs, _full_mask(adapter, inputs), cache, has_media, padding_id, _items_in(cache))

    @classmethod
    def of_forward(cls, adapter: ModelAdapter, arguments: Mapping[str, Any]) -> "Call":
        """Read a call of `forward`."""
        inputs = with_installed_name(arguments)
        cache, mask = cache_in(inputs), inputs.get("attention_mask")
        return cls(adapter, inputs, mask, cache, has_visual_inputs(inputs), adapter.padding_id, _items_in(cache))

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is cached yet."""
        return self.cache is None or self.cache.get_seq_length() == 0

    @property
    def passes_as_text(self) -> bool:
        """Whether no images come, and none were pruned before the LLM in the turns that the cache holds."""
        return not self.has_media and not is_continued(self.cache)

    @cached_property
    def input_ids(self) -> Tensor:
        """(B, L) int64.

        Raises:
            PruningError: the call brings embeddings instead of ids.
        """
        require_ids(self.inputs)
        ids: Tensor = self.inputs["input_ids"]
        return ids

    @cached_property
    def past(self) -> Past | None:
        """What a pruned model knows of the cache, see `past_of`; None if it is empty or another model filled it."""
        ids = self.input_ids
        return None if self.cache is None else past_of(self.cache, len(ids))

    @property
    def past_length(self) -> int:
        """How many tokens of the whole conversation `past` stands for."""
        return 0 if self.past is None else self.past.length

    @property
    def continues_pruned_prompt(self) -> bool:
        """Whether the cache holds a prompt that was pruned before the LLM."""
        return self.inputs.get("input_ids") is not None and self.past is not None and self.past.prompt.is_pruned

    @cached_property
    def dropped(self) -> DroppedPrompt | None:
        """What was dropped inside the LLM from the prompt that the cache begins with, see `dropped_prompt`."""
        return dropped_prompt(self.cache)

    def conversation_mask(self) -> Tensor:
        """(B, L) the mask over the whole conversation, ones if the call brings none."""
        if self.attention_mask is not None:
            return self.attention_mask
        cached = full_length(self.cache)
        rows, new = self.input_ids.shape
        return torch.ones(rows, cached + new, dtype=torch.int64, device=self.input_ids.device)

    def refuse_placeholders(self) -> None:
        """Refuse placeholders in a call without images, unless a cache may hold what they stand for.

        Raises:
            PruningError: there are placeholders.
        """
        ids = self.inputs.get("input_ids")
        if ids is not None and self.is_fresh:
            require_no_placeholders(self.adapter, ids)


def _items_in(cache: Any) -> tuple[ItemReport, ...]:
    return getattr(cache, CACHED_ITEMS, ()) if cache is not None and cache.get_seq_length() else ()


def require_ids(inputs: Mapping[str, Any]) -> None:
    """Refuse calls whose placeholders cannot be found.

    Raises:
        PruningError: the call brings embeddings instead of ids, or shapes that do not fit each other.
    """
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if inputs.get("inputs_embeds") is not None or ids is None:
        raise PruningError("input_ids must be given while the model is pruned: inputs_embeds show no placeholders")
    if ids.ndim != 2 or ids.is_floating_point():
        raise PruningError(f"input_ids must be (B, L) integers, got {ids.dtype} of shape {tuple(ids.shape)}")
    is_first = all(inputs.get(name) is None for name in NAMES)
    if mask is not None and mask.ndim == 2 and (len(mask) != len(ids) or (is_first and mask.shape != ids.shape)):
        raise PruningError(f"attention_mask must be {tuple(ids.shape)} as input_ids, got {tuple(mask.shape)}")
    positions = inputs.get("position_ids")
    if is_first and positions is not None and positions.shape[-1] != ids.shape[1]:
        raise PruningError(f"position_ids must be (..., {ids.shape[1]}) as input_ids, got {tuple(positions.shape)}")


def _full_mask(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> Tensor | None:
    """Read the (B, L) mask over the original prompt; without one, padding is told by its id as in `generate`.

    Raises:
        PruningError: the mask is not two-dimensional.
    """
    input_ids: Tensor | None = inputs.get("input_ids")
    mask: Tensor | None = inputs.get("attention_mask")
    if mask is not None:
        if mask.ndim != 2:
            raise PruningError(f"attention_mask must have shape (batch, length), got {tuple(mask.shape)}")
        return mask
    if input_ids is None:
        return None
    padding = adapter.generation_setting(inputs, "pad_token_id")
    ends = adapter.generation_setting(inputs, "eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if padding is None or padding in ends:
        return torch.ones_like(input_ids)
    return input_ids.ne(padding).long()
