"""Which layers of a vision tower a method reads and vLLM builds, and whether the tower can be read at all.

Asked when the server starts, before any worker does, and again when the tower is built.
"""

from typing import Any

from divprune.methods import Method
from divprune.methods.item_context import Need
from divprune.methods.vision_inputs import LAYER_NEEDS

CLIP = "clip_vision_model"
LLAVA_TOWERS = {CLIP: "CLIP", "siglip_vision_model": "SigLIP"}
"""Towers that LLaVA's families may have and that can be read, by `vision_config.model_type`."""


def layers_read(config: Any, method: Method) -> list[tuple[frozenset[Need], int]]:
    """Return what a method needs of which layers of the vision tower, counted from 0.

    Where layers look at windows of an image only, it is the next one that looks at all of it, or the last such one.

    Args:
        config: The whole model's.
        method: The method.

    Raises:
        ValueError: There is no such layer.
    """
    total, whole = num_layers(config), getattr(config.vision_config, "fullatt_block_indexes", None)
    found = []
    named = (("vision_layer", method.vision_layer), ("early_layer", method.early_vision_layer))
    for needs, (name, layer) in zip(LAYER_NEEDS, named, strict=True):
        if own := needs & method.needs:
            if not -total <= layer < total:
                raise ValueError(f"{name} must be between {-total} and {total - 1}, got {layer}")
            index = layer % total
            if whole:
                index = min((full for full in whole if full >= index), default=max(whole))
            found.append((own, index))
    return found


def num_layers(config: Any) -> int:
    """Return how many layers the vision tower of a checkpoint has."""
    vision = config.vision_config
    return int(vision.depth if hasattr(vision, "depth") else vision.num_hidden_layers)


def num_heads(config: Any) -> int:
    """Return how many heads each of these layers has."""
    vision = config.vision_config
    return int(vision.num_heads if hasattr(vision, "num_heads") else vision.num_attention_heads)


def num_layers_built(config: Any) -> int:
    """Return how many layers of the vision tower vLLM builds: in LLaVA's families up to what the projector reads."""
    total = num_layers(config)
    layer = config.vision_feature_layer if config.vision_config.model_type in LLAVA_TOWERS else total
    return int(layer if layer >= 0 else total + layer + 1)


def why_unreadable(config: Any) -> str:
    """Return why a method cannot be told of a model's vision tower, or nothing if it can; LLaVA's differ."""
    if not config.model_type.startswith("llava"):
        return ""
    kind = config.vision_config.model_type
    if kind not in LLAVA_TOWERS:
        return f"only {' and '.join(LLAVA_TOWERS.values())} towers can be read, and this model's is {kind!r}"
    if not isinstance(config.vision_feature_layer, int):
        return f"the projector reads several layers at once (vision_feature_layer {config.vision_feature_layer})"
    if kind == CLIP and config.vision_feature_select_strategy == "full":
        return "the CLS token is one of the visual tokens (vision_feature_select_strategy 'full')"
    return ""
