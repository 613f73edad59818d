"""Whether a model's decoder layers can lose tokens half-way: checked when it is attached, the rest by each call."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from divprune.config import PruningConfig
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.items import Encoding
from divprune.huggingface.families.registry import Family
from divprune.huggingface.layer_pruning.decoder_capture import CAPTURED
from divprune.huggingface.layer_pruning.state import DroppedPrompt

TYPES = "moe_mm_token_type_ids"
RUNNING_STATE = "which keeps a running state instead of one cache entry a token, so that no mask can leave padding out"
LAYER_REASONS = {
    "linear_attention": RUNNING_STATE,
    "conv": RUNNING_STATE,
    "hybrid": RUNNING_STATE,
    "hybrid_sliding": RUNNING_STATE,
    "indexed_attention": "whose indexer keeps keys of its own by their slots in the cache, in some models a block of "
    "neighbours each",
    "reference_sliding_attention": "which keeps the prompt and a ring of later tokens by their slots in the cache",
    "chunked_attention": "which masks by place in its cache, and tokens dropped half-way would shift the places",
}
STREAMS = ("altup_num_inputs", "hc_mult", "hc_count")
"""Configuration entries of models whose layers hand on several hidden states for each token."""

LATE_BLOCKS, FIRST_RIGHT = ("gemma3", "paligemma"), (5, 23)
ORDINARY = ("full_attention", "sliding_attention")
FINAL_NORMS = ("norm", "embedding_norm")
"""What language models call the norm behind their last layer."""


def require_droppable_layers(adapter: ModelAdapter, config: PruningConfig) -> None:
    """Refuse what does not work while a method drops tokens inside the LLM.

    Raises:
        ValueError: a layer is out of range, or an argument does not apply.
        UnsupportedModelError: the model's layers cannot lose tokens half-way.
    """
    method, num_layers = config.method, adapter.num_layers
    layers = method.layers
    lowest = 0 if len(layers) > 1 else 1
    if list(layers) != sorted(set(layers)) or layers[0] < lowest or layers[-1] >= num_layers:
        got = layers[0] if len(layers) == 1 else layers
        raise ValueError(f"layer must be between 1 and {num_layers - 1} for this model, got {got}")
    if config.positions == "compact":
        raise ValueError(
            f"positions must be 'original' or None for {method.name!r} at layer {layers[0]}, got 'compact': the tokens "
            "have been through layers with their positions"
        )
    if config.order == "selection":
        raise ValueError(
            f"order must be 'sorted' for {method.name!r} at layer {layers[0]}, got 'selection': the tokens have been "
            "read in their order"
        )
    reads_before = bool(method.needs & CAPTURED) and method.decoder_layer == "before"
    _require_ordinary_attention(adapter.model, layers[0], int(reads_before))
    if "final_norm" in method.needs | method.layer_needs and final_norm(adapter.decoder) is None:
        raise UnsupportedModelError(
            f"method {method.name!r} needs the norm behind the last decoder layer, which is not known of this "
            f"{adapter.family.name!r} model; choose another method"
        )


def final_norm(decoder: nn.Module) -> nn.Module | None:
    """Return the norm behind the last decoder layer; None if it is not known."""
    return next((getattr(decoder, name) for name in FINAL_NORMS if hasattr(decoder, name)), None)


def require_cuttable_masks(adapter: ModelAdapter) -> None:
    """Refuse attention implementations whose masks are not (B, H, q, n); they can change after `attach`.

    Raises:
        PruningError: neither sdpa nor eager attention.
    """
    implementation = adapter.attention_implementation
    if implementation not in ("sdpa", "eager"):
        raise PruningError(
            f"attn_implementation must be 'sdpa' or 'eager' while tokens are dropped inside the model, got "
            f"{implementation!r}: it takes no mask that could be cut; or choose a method that acts before the LLM"
        )


def require_right_blocks(family: Family, cache: Any) -> None:
    """Refuse later turns with images where transformers itself misplaces the blocks that see each other both ways.

    Raises:
        PruningError: the cache is static, or transformers is too old.
    """
    if cache.is_compileable:
        raise PruningError(
            "the cache must be a dynamic cache when new images come in on a later turn: on a static one "
            f"transformers builds wrong masks for {family.name!r}, pruned or not"
        )
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if family.name in LATE_BLOCKS and version < FIRST_RIGHT:
        raise PruningError(
            f"new images on a later turn need transformers 5.23 for {family.name!r}, got {transformers.__version__}, "
            "which builds wrong masks, pruned or not; pass the whole conversation without the cache"
        )


def require_one_prefill(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> None:
    """Refuse a prefill in chunks.

    Raises:
        PruningError: it comes in chunks.
    """
    if adapter.generation_setting(inputs, "prefill_chunk_size") is not None:
        raise PruningError(
            "prefill_chunk_size must be None while tokens are dropped inside the model: the choice at layer K needs "
            "the whole prompt at once"
        )


def require_layers_run_once(adapter: ModelAdapter) -> None:
    """Refuse gradient checkpointing.

    Raises:
        PruningError: it would run the layers again after the hooks are gone.
    """
    layers = adapter.decoder_layers
    if adapter.model.training and any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        raise PruningError("gradient checkpointing must be off while tokens are dropped inside the model")


def require_same_layers(before: DroppedPrompt | None, layers: tuple[int, ...]) -> None:
    """Refuse new images at other layers than those that dropped tokens from the cache.

    Raises:
        PruningError: the layers differ.
    """
    if before is not None and before.layers != layers:
        raise PruningError(
            f"the cache lost tokens at layers {before.layers}, got new images to drop at layers {layers}; "
            "attach a method with the same layers, or pass the whole conversation without the cache"
        )


def require_known_deepstack(encoding: Encoding, layer: int, knows_deepstack: bool) -> None:
    """Refuse to drop before layers that add visual features in a way that is not known.

    Raises:
        PruningError: the first dropping layer is one of them.
    """
    depth = max(len(getattr(output, "deepstack_features", None) or ()) for output in encoding.outputs.values())
    if layer < depth and not knows_deepstack:
        raise PruningError(
            f"layer must be at least {depth} for this model, got {layer}: it adds visual features to the hidden states "
            f"of all visual tokens after layers 0 to {depth - 1}"
        )


def require_whole_mask(attention_mask: Tensor, prompt: DroppedPrompt) -> None:
    """Refuse a mask (B, n) that does not cover what the cache holds.

    Raises:
        PruningError: it is shorter than the cached prompt.
    """
    length = attention_mask.shape[1]
    if length < prompt.stop:
        raise PruningError(
            f"attention_mask must cover the cached prompt and the new tokens, more than {prompt.stop} columns, got "
            f"{length}"
        )


def _require_ordinary_attention(model: PreTrainedModel, first: int, num_before: int) -> None:
    """Refuse models whose layers from `first` on cannot lose tokens, or show no attention `num_before` it."""
    config, family = model.config.get_text_config(), model.config.model_type
    if TYPES in inspect.signature(model.get_decoder().layers[0].forward).parameters:
        raise UnsupportedModelError(
            f"tokens cannot be dropped inside this {family!r} model: its layers choose experts by {TYPES}, one a "
            "token of the whole prompt; choose a method that acts before the LLM"
        )
    if any(getattr(config, name, None) for name in STREAMS):
        raise UnsupportedModelError(
            f"tokens cannot be dropped inside this {family!r} model: its layers hand on several streams of hidden "
            "states for each token instead of one; choose a method that acts before the LLM"
        )
    if getattr(config, "num_kv_shared_layers", None):
        raise UnsupportedModelError(
            f"tokens cannot be dropped inside this {family!r} model: its last {config.num_kv_shared_layers} layers "
            "have no keys and values of their own and read those of earlier layers; choose a method that acts before "
            "the LLM"
        )
    kinds = getattr(config, "layer_types", None) or ()
    for layer, kind in enumerate(kinds):
        if layer >= first - num_before and kind not in ORDINARY:
            reason = LAYER_REASONS.get(kind, "which is no ordinary attention")
            raise UnsupportedModelError(
                f"tokens cannot be dropped inside this {family!r} model: its layer {layer} is {kind!r}, {reason}; "
                f"choose a method that acts before the LLM{_higher(kinds, num_before)}"
            )
    if first and kinds and not any(kind in ORDINARY for kind in kinds[:first]):
        raise UnsupportedModelError(
            f"tokens cannot be dropped at layer {first} of this {family!r} model: no layer before it caches the whole "
            "prompt, whose length transformers reads there; choose a method that acts before the LLM, or a layer from "
            f"{first + 1} on"
        )


def _higher(kinds: Sequence[str], num_before: int) -> str:
    """Name what else could be chosen: a layer behind the last one that is out of the ordinary."""
    lowest = max(layer for layer, kind in enumerate(kinds) if kind not in ORDINARY) + 1 + num_before
    return f", or a layer from {lowest} on" if lowest < len(kinds) else ""
