"""Whether a `PruningConfig` fits a model: what the family cannot do is refused when the model is attached."""

from divprune.config import Positions, PruningConfig
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.method_inputs import require_vision_needs
from divprune.huggingface.families.registry import Family, supported_families
from divprune.huggingface.fingerprint import require_same_model
from divprune.huggingface.layer_pruning.checks import require_droppable_layers
from divprune.huggingface.layer_pruning.layer_selection import DECODER_NEEDS
from divprune.methods.vision_inputs import VISION_NEEDS


def require_fitting(adapter: ModelAdapter, config: PruningConfig) -> bool:
    """Refuse a config that does not fit the model; tell whether it drops tokens inside the LLM.

    Raises:
        ValueError: an argument does not apply to the model or the method.
        UnsupportedModelError: what the method reads is not known of the model.
        CalibrationError: the method was calibrated on another model.
    """
    method = config.method
    _require_positions(adapter.family, config.positions)
    _require_parts(adapter.family, config)
    if method.calibrated_on is not None:
        require_same_model(adapter.model, method.calibrated_on, f"calibrate {method.name!r} again, on this model")
    drops_inside = bool(method.layers)
    if drops_inside:
        require_droppable_layers(adapter, config)
    elif method.needs & DECODER_NEEDS:
        raise ValueError(
            f"method {method.name!r} needs {', '.join(sorted(method.needs & DECODER_NEEDS))} of a decoder layer, so it "
            "must name layers: layers = (4,) reads layer 3 and drops tokens at the entrance of layer 4"
        )
    if method.needs & VISION_NEEDS:
        require_vision_needs(adapter, method)
    return drops_inside


def _require_positions(family: Family, positions: Positions | None) -> None:
    if positions == "compact" and family.has_coordinates:
        raise ValueError(
            f"positions must be 'original' or None for {family.name!r}, got 'compact': its position ids are "
            "(frame, row, column) coordinates, which must stay with their tokens"
        )
    if positions == "original" and not family.takes_positions:
        raise ValueError(
            f"positions must be 'compact' or None for {family.name!r}, got 'original': its generate() counts the "
            "positions anew"
        )


def _require_parts(family: Family, config: PruningConfig) -> None:
    if config.scope == "tile" and not family.cuts_tiles:
        able = ", ".join(each.name for each in supported_families() if each.cuts_tiles)
        raise ValueError(
            f"scope must be 'item', 'frame' or 'sample' for {family.name!r}, got 'tile': its images are not cut into "
            f"tiles, or it is not known which token is of which; families with tiles: {able}"
        )
    if config.newlines != "budget" and not family.tells_newlines:
        able = ", ".join(each.name for each in supported_families() if each.tells_newlines)
        raise ValueError(
            f"newlines must be 'budget' for {family.name!r}, got {config.newlines!r}: it has no image newline tokens, "
            f"or it is not known which they are; families that tell: {able}"
        )
