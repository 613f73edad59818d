"""The pruned prompt: fewer placeholders, and ids, masks, types, labels and positions gathered to match.

```
original   bos  V  V  V  V  V  V  how  many  ?     input_ids, attention_mask, ...        (B, L)
kept            1        4     6                   ItemSelection of the image
gather_index     0    1        4     6  7    8     9     which original token stands where     (B, L')
pruned     bos  V  V  V  how  many  ?              the same tensors, gathered once       (B, L')
positions  0    1  4  6  7    8    9               "original"; "compact" numbers 0 to 6
```
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.config import Order, PruningConfig
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encoder_output import kept_outputs, with_merged_tokens
from divprune.huggingface.encoding.items import Encoding, ItemSelection, VisualItem
from divprune.huggingface.gather_tokens import PADDING, gather_index_of, gather_tokens, reorder_tokens
from divprune.huggingface.input_pruning.cache import CachedPrompt, Past, present_tokens
from divprune.huggingface.input_pruning.checks import (
    require_empty_cache,
    require_no_placeholders,
    require_placeable_images,
    require_placeable_padding,
)
from divprune.huggingface.input_pruning.continuation import forward_inputs, generate_inputs
from divprune.huggingface.input_pruning.positions import (
    continued_positions,
    first_positions,
    next_position,
)
from divprune.huggingface.model_inputs import PADDING_VALUES, TYPE_INPUTS
from divprune.huggingface.report import PruningReport, call_report, kept_tokens_of
from divprune.methods.item_context import Modality


@dataclass(frozen=True)
class PrunedPrompt:
    """A call's pruned prompt.

    Attributes:
        inputs: the arguments to call with, `mm_encoder_outputs` among them.
        gather_index: (B, L') original token index of each token, see `gather_index_of`.
        keep_mask: (B, L) bool, which attended tokens of the original prompt are left.
        row_sizes: per modality, the kept tokens of each row that has any.
        cached: what a cache will hold of it.
        encoding: the visual tokens that it was pruned from.
        selections: what was kept of each item.
        order: in which order the LLM reads them.
    """

    inputs: dict[str, Any]
    gather_index: Tensor
    keep_mask: Tensor
    row_sizes: dict[Modality, list[int]]
    cached: CachedPrompt
    encoding: Encoding
    selections: list[ItemSelection]
    order: Order

    def report(self, model: PreTrainedModel, pruned_length: int) -> PruningReport:
        """Report what was kept, in a call whose layers saw `pruned_length` tokens."""
        kept_tokens = kept_tokens_of(self.encoding.items, self.selections, self.order)
        num_tokens = self.keep_mask.shape[1]
        items = (self.encoding, self.selections, kept_tokens)
        return call_report(model, self.keep_mask, num_tokens, pruned_length, *items, self.gather_index)


def whole_conversation(call: Call, is_generate: bool) -> dict[str, Any]:
    """Complete a call's inputs so that ids, mask and types cover the whole conversation.

    Raises:
        PruningError: they do not fit the cache, or new images cannot be placed behind it.
    """
    if call.past is None:
        if call.cache is not None:
            require_empty_cache(call.cache)
        return {**call.inputs, "attention_mask": call.conversation_mask()}
    complete = (
        generate_inputs(call.inputs, call.attention_mask, call.past)
        if is_generate
        else forward_inputs(call.inputs, call.past)
    )
    # The first new token was generated, and may be anything.
    require_placeable_images(call.adapter, complete["input_ids"][:, call.past.length + 1 :])
    return complete


def prune_prompt(
    call: Call,
    inputs: dict[str, Any],
    config: PruningConfig,
    encoding: Encoding,
    selections: list[ItemSelection],
) -> PrunedPrompt:
    """Shorten a call with images or videos, or one that continues from a pruned prompt.

    Args:
        call: the call.
        inputs: its arguments over the whole conversation, see `whole_conversation`.
        config: how to prune.
        encoding: what the encoder made of the images and videos that are not cached.
        selections: what stays of each of them.

    Returns:
        The call to make instead. `position_ids` are left out where the model derives the right ones by itself.
    """
    adapter, past = call.adapter, call.past
    ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
    if any(selection.merged is not None for selection in selections):
        encoding = with_merged_tokens(encoding, selections)
    fills = {"input_ids": call.padding_id, **PADDING_VALUES}
    keep, gather_index = _keep_and_gather_index(ids, attention_mask, encoding.items, selections, config.order, past)
    if past is not None and not encoding.outputs:
        require_no_placeholders(adapter, ids[:, past.length + 1 :])
    pruned_mask = gather_tokens(attention_mask, gather_index, 0)
    if past is not None:
        require_placeable_padding(adapter, pruned_mask[:, past.pruned_length :])
    pruned = {name: value for name, value in inputs.items() if name not in encoding.consumed}
    for name, fill in fills.items():
        if isinstance(pruned.get(name), Tensor):
            pruned[name] = gather_tokens(pruned[name], gather_index, fill)
    pruned["attention_mask"] = pruned_mask
    mode = config.positions or adapter.family.positions
    if past is None:
        positions, pruned["position_ids"] = first_positions(adapter, mode, inputs, attention_mask, gather_index)
    else:
        positions, pruned["position_ids"] = continued_positions(
            adapter, inputs, attention_mask, gather_index, past, encoding
        )
    has_coordinates = positions is not None and positions.ndim == 3
    later = next_position(adapter, cast(Tensor, positions), attention_mask) if has_coordinates else None
    pruned["mm_encoder_outputs"], row_sizes = kept_outputs(encoding, selections, config.order)
    cached = CachedPrompt(
        ids=ids,
        attention_mask=attention_mask,
        gather_index=gather_index,
        types={name: inputs[name] for name in TYPE_INPUTS if isinstance(inputs.get(name), Tensor)},
        positions=mode if past is None else past.prompt.positions,
        positions_given=inputs.get("position_ids") is not None,
        next_position=later,
    )
    pruned = {name: value for name, value in pruned.items() if value is not None}
    keep_mask = keep & attention_mask.bool()
    return PrunedPrompt(pruned, gather_index, keep_mask, row_sizes, cached, encoding, selections, config.order)


def text_prompt(call: Call, config: PruningConfig, attention_mask: Tensor) -> CachedPrompt:
    """Describe what a cache will hold of a prompt (B, L) without images."""
    family = call.adapter.family
    return CachedPrompt(
        ids=call.input_ids,
        attention_mask=attention_mask,
        gather_index=torch.arange(attention_mask.shape[1], device=attention_mask.device).expand_as(attention_mask),
        types={name: call.inputs[name] for name in TYPE_INPUTS if isinstance(call.inputs.get(name), Tensor)},
        positions=config.positions or family.positions,
        positions_given=call.inputs.get("position_ids") is not None,
        next_position=attention_mask.bool().sum(dim=-1) if family.has_coordinates else None,
    )


def _keep_and_gather_index(
    input_ids: Tensor,
    attention_mask: Tensor,
    items: list[VisualItem],
    selections: list[ItemSelection],
    order: Order,
    past: Past | None,
) -> tuple[Tensor, Tensor]:
    """Return keep (B, L) bool, over the original prompt, and gather_index (B, L') int64, by which it is pruned.

    On a later turn the pruned prompt begins with what the cache holds, one entry a slot (`past.gather_index`):
    `generate` itself leaves out the first `cache.get_seq_length()` tokens of the prompt that it is given.
    """
    keep = torch.ones_like(input_ids, dtype=torch.bool)
    for item, selection in zip(items, selections, strict=True):
        keep[item.row, item.placeholders] = False
        keep[item.row, item.placeholders[selection.kept_indices]] = True
    if past is None:
        gather_index = gather_index_of(keep, attention_mask)
    else:
        new = gather_index_of(keep[:, past.length :], attention_mask[:, past.length :])
        gather_index = torch.cat([past.gather_index, torch.where(new == PADDING, PADDING, new + past.length)], dim=-1)
        keep[:, : past.length] = present_tokens(past.gather_index, past.length)
    if order == "selection":
        for item, selection in zip(items, selections, strict=True):
            pruned_index, indices = (
                item.placeholders[selection.kept_indices],
                item.placeholders[selection.selection_order],
            )
            gather_index = reorder_tokens(gather_index, item.row, pruned_index, indices)
    return keep, gather_index
