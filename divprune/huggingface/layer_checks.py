"""Whether a model's decoder layers can lose tokens half-way, checked when the model is attached."""

import inspect

from transformers import PreTrainedModel

from divprune.errors import PruningError, UnsupportedModelError
from divprune.methods.base import Method

TYPES = "moe_mm_token_type_ids"
RUNNING_STATE = "which keeps a running state instead of one cache entry a token"
REASONS = {
    "linear_attention": RUNNING_STATE,
    "conv": RUNNING_STATE,
    "hybrid": RUNNING_STATE,
    "sliding_attention": "which masks by distance in its cache, and tokens dropped half-way would shift the distances",
    "chunked_attention": "which masks by place in its cache, and tokens dropped half-way would shift the places",
}


def require_droppable_layers(model: PreTrainedModel, method: Method, order: str, positions: str | None) -> None:
    """Refuses what does not work while `method` drops tokens inside the language model.

    Raises:
        ValueError: a layer is out of range, or an argument does not apply.
        UnsupportedModelError: the model's layers cannot lose tokens half-way.
    """
    num_layers = model.config.get_text_config().num_hidden_layers
    layers = method.layers
    if list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] >= num_layers:
        got = layers[0] if len(layers) == 1 else layers
        raise ValueError(f"layer must be between 1 and {num_layers - 1} for this model, got {got}")
    if positions == "compact":
        raise ValueError(
            f"positions must be 'original' or None for {method.name!r} at layer {layers[0]}, got 'compact': the tokens "
            "have been through layers with their positions"
        )
    if order == "selection":
        raise ValueError(
            f"order must be 'sorted' for {method.name!r} at layer {layers[0]}, got 'selection': the tokens have been "
            "read in their order"
        )
    _require_plain_attention(model)


def require_cuttable_masks(model: PreTrainedModel) -> None:
    """Refuses attention implementations whose masks are not (B, H, q, n); they can change after `attach`.

    Raises:
        PruningError: neither sdpa nor eager attention.
    """
    implementation = model.config.get_text_config()._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise PruningError(
            f"attn_implementation must be 'sdpa' or 'eager' while tokens are dropped inside the model, got "
            f"{implementation!r}: it takes no mask that could be cut; or choose layer=0"
        )


def _require_plain_attention(model: PreTrainedModel) -> None:
    config, family = model.config.get_text_config(), model.config.model_type
    if TYPES in inspect.signature(model.get_decoder().layers[0].forward).parameters:
        raise UnsupportedModelError(
            f"tokens cannot be dropped inside this {family!r} model: its layers choose experts by {TYPES}, one a "
            "token of the whole prompt; choose layer=0"
        )
    if getattr(config, "num_kv_shared_layers", None):
        raise UnsupportedModelError(
            f"tokens cannot be dropped inside this {family!r} model: its last {config.num_kv_shared_layers} layers "
            "read the keys and values of earlier layers, which hold other tokens; choose layer=0"
        )
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"]
    for layer, kind in enumerate(kinds):
        if kind != "full_attention":
            reason = REASONS.get(kind, "which is no ordinary attention")
            raise UnsupportedModelError(
                f"tokens cannot be dropped inside this {family!r} model: its layer {layer} is {kind!r}, {reason}; "
                "choose layer=0"
            )
