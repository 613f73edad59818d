"""Which layers of a vision tower a method reads and vLLM builds, and whether the tower can be read at all.

Asked when the server starts, before any worker does, and again when the tower is built.
"""

from typing import Any

from divprune.methods import Method
from divprune.methods.base import Need
from divprune.methods.vision_inputs import LAYER_NEEDS

CLIP = "clip_vision_model"
READ_TOWERS = {CLIP: "CLIP", "siglip_vision_model": "SigLIP"}
"""By `vision_config.model_type`."""


def layers_read(config: Any, method: Method) -> list[tuple[frozenset[Need], int]]:
    """Return what a method needs of which layers of the vision tower, counted from 0.

    Args:
        config: The whole model's.
        method: The method.

    Raises:
        ValueError: There is no such layer.
    """
    total = config.vision_config.num_hidden_layers
    found = []
    named = (("vision_layer", method.vision_layer), ("early_layer", method.early_vision_layer))
    for needs, (name, layer) in zip(LAYER_NEEDS, named, strict=True):
        if own := needs & method.needs:
            if not -total <= layer < total:
                raise ValueError(f"{name} must be between {-total} and {total - 1}, got {layer}")
            found.append((own, layer % total))
    return found


def num_layers_built(config: Any) -> int:
    """Return how many layers of the vision tower vLLM builds: up to the one that the projector reads."""
    layer, total = config.vision_feature_layer, config.vision_config.num_hidden_layers
    return int(layer if layer >= 0 else total + layer + 1)


def why_unreadable(config: Any) -> str:
    """Return why a method cannot be told of a model's vision tower, or nothing if it can."""
    kind = config.vision_config.model_type
    if kind not in READ_TOWERS:
        return f"{' and '.join(READ_TOWERS.values())} towers alone can be read, and this model's is {kind!r}"
    if not isinstance(config.vision_feature_layer, int):
        return f"the projector reads several layers at once (vision_feature_layer {config.vision_feature_layer})"
    if kind == CLIP and config.vision_feature_select_strategy == "full":
        return "the CLS token is one of the visual tokens (vision_feature_select_strategy 'full')"
    return ""
