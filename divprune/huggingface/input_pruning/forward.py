"""What `forward` needs around a pruned prompt: new tokens only, positions that know the padding, remembering caches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from divprune.config import PruningConfig
from divprune.huggingface.call import Call
from divprune.huggingface.gather_tokens import compact_positions, places_of
from divprune.huggingface.input_pruning.cache import keep_prompt
from divprune.huggingface.input_pruning.checks import require_integer_on_a_kept_cache, require_unpacked_positions
from divprune.huggingface.input_pruning.prompt import PrunedPrompt, text_prompt

NEW_TOKENS_ONLY = ("input_ids", "position_ids", "labels", "moe_mm_token_type_ids")


def forward_arguments(call: Call, pruned: PrunedPrompt) -> dict[str, Any]:
    """Give `forward` a pruned prompt as it takes it: what the cache does not hold yet, with positions for all of it."""
    arguments, prompt = dict(pruned.inputs), pruned.cached
    if prompt.is_pruned and "position_ids" not in arguments:
        arguments["position_ids"] = compact_positions(arguments["attention_mask"])
    if "position_ids" in arguments and arguments["position_ids"].ndim == 2 and not prompt.positions_given:
        arguments["position_ids"] = arguments["position_ids"] + call.adapter.family.first_position
        if not prompt.is_pruned:  # as without pruning, where models count padding too
            del arguments["position_ids"]
    if isinstance(arguments.get("logits_to_keep"), Tensor):
        require_integer_on_a_kept_cache("logits_to_keep", call.past)
        wanted, length = arguments["logits_to_keep"], pruned.keep_mask.shape[1]
        arguments["logits_to_keep"] = places_of(wanted, pruned.gather_index, length)
    if call.past is not None:
        for name in NEW_TOKENS_ONLY:
            if name in arguments:
                arguments[name] = arguments[name][..., call.past.pruned_length :]
    if bool(arguments["attention_mask"].all()):  # padding tells flash attention where a sequence ends
        require_unpacked_positions(call.adapter, arguments.get("position_ids"))
    return arguments


def remember_forward(call: Call, pruned: PrunedPrompt, output: Any) -> None:
    """Note a prompt on the cache that `forward` filled, unless rows are padded and a later turn could not know it."""
    if pruned.cached.is_pruned or bool(pruned.cached.attention_mask.all()):
        keep_prompt(pruned.cached, call.cache, output)


def forward_text(call: Call, config: PruningConfig, forward: Callable[..., Any]) -> Any:
    """Let text pass untouched; a cache without padding remembers it, since then all agree on the positions."""
    ids: Tensor | None = call.inputs.get("input_ids")
    is_padded = call.attention_mask is not None and not bool(call.attention_mask.all())
    if ids is None or is_padded or (call.past is None and not call.is_fresh):
        return forward(**call.inputs)
    if call.past is None:
        prompt = text_prompt(call, config, torch.ones_like(ids))
    else:
        prompt = replace(call.past.prompt, ids=torch.cat([call.past.prompt.ids[:, : call.past.length], ids], dim=-1))
    output = forward(**call.inputs)
    keep_prompt(prompt, call.cache, output)
    return output
