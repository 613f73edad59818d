"""Whether a `PruningConfig` fits a model: what it cannot do is refused when it is attached, or by its config alone.

`require_fitting` looks at the model that is to be pruned, `require_prunable` and `misfits` at one without weights, so
that commands can refuse impossible settings before they read or measure anything.
"""

from collections.abc import Collection, Iterable

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from divprune.config import Positions, PruningConfig, require_scope
from divprune.encoder_options import require_encoder_modality
from divprune.errors import DivpruneError, argument_errors
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode_less import require_encoder_option
from divprune.huggingface.encoding.method_inputs import require_vision_needs
from divprune.huggingface.families.registry import Family, supported_families
from divprune.huggingface.fingerprint import require_same_model
from divprune.huggingface.layer_pruning.checks import require_droppable_layers
from divprune.huggingface.layer_pruning.layer_selection import DECODER_NEEDS
from divprune.methods.base import require_modality
from divprune.methods.item_context import Modality
from divprune.methods.vision_inputs import VISION_NEEDS


def require_prunable(
    model_config: PreTrainedConfig, configs: Iterable[PruningConfig], shown: Collection[Modality] = ()
) -> None:
    """Refuse settings that cannot work on a model, by its config alone, before its weights are read.

    Args:
        model_config: of a supported family.
        configs: how it is to be pruned.
        shown: the modalities that it will be shown; none if they are not known.

    Raises:
        ArgumentError: a setting does not apply to the model, or a method to a modality.
        DivpruneError: what a method reads is not known of the model, or its CLIP checkpoint is none, or of other sizes.
    """
    adapter = _without_weights(model_config)
    with argument_errors():
        for config in configs:
            _require_fitting_what_is_shown(adapter, config, shown)


def misfits(
    model_config: PreTrainedConfig, configs: Iterable[tuple[PruningConfig, Collection[Modality]]]
) -> list[str | None]:
    """Say of each of several settings and the modalities shown why `require_prunable` refuses it; None if it fits."""
    adapter = _without_weights(model_config)
    reasons: list[str | None] = []
    for config, shown in configs:
        try:
            _require_fitting_what_is_shown(adapter, config, shown)
            reasons.append(None)
        except (DivpruneError, ValueError) as error:
            reasons.append(" ".join(str(error).split()))
    return reasons


def _without_weights(model_config: PreTrainedConfig) -> ModelAdapter:
    """Build a model on torch's meta device, where no weight is stored."""
    with torch.device("meta"):
        return ModelAdapter.of(AutoModelForImageTextToText.from_config(model_config, trust_remote_code=False))


def _require_fitting_what_is_shown(adapter: ModelAdapter, config: PruningConfig, shown: Collection[Modality]) -> None:
    for modality in sorted(shown):
        _require_media(adapter.family, modality)
        require_modality(config.method, modality)
        require_scope(config.scope, modality)
        if config.encoder is not None:
            require_encoder_modality(config.encoder, modality)
    require_fitting(adapter, config, has_weights=False)


def require_fitting(adapter: ModelAdapter, config: PruningConfig, *, has_weights: bool = True) -> bool:
    """Refuse a config that does not fit the model; tell whether it drops tokens inside the LLM.

    Args:
        adapter: the model.
        config: how to prune.
        has_weights: whether the model has weights, which tell what it was calibrated on and whose its tower is.

    Raises:
        ValueError: an argument does not apply to the model or the method.
        UnsupportedModelError: what the method reads is not known of the model.
        CalibrationError: the method was calibrated on another model.
    """
    method = config.method
    _require_positions(adapter.family, config.positions)
    require_parts(adapter.family, config)
    if has_weights and method.calibrated_on is not None:
        require_same_model(adapter.model, method.calibrated_on, f"calibrate {method.name!r} again, on this model")
    drops_inside = bool(method.layers)
    if drops_inside:
        require_droppable_layers(adapter, config)
    elif method.needs & DECODER_NEEDS:
        raise ValueError(
            f"method {method.name!r} needs {', '.join(sorted(method.needs & DECODER_NEEDS))} of a decoder layer, so it "
            "must name layers: layers = (4,) reads layer 3 and drops tokens at the entrance of layer 4"
        )
    require_encoder_option(adapter, config)
    if method.needs & VISION_NEEDS:
        require_vision_needs(adapter, method, has_weights)
    return drops_inside


def _require_media(family: Family, modality: Modality) -> None:
    if modality not in family.modalities:
        able = ", ".join(each.name for each in supported_families() if modality in each.modalities)
        raise ValueError(f"a {family.name!r} model takes no {modality}; these families do: {able}")


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


def require_parts(family: Family, config: PruningConfig) -> None:
    """Refuse `scope="tile"` for a family without tiles, and `newlines` for one that does not tell them.

    Raises:
        ValueError: the family is one.
    """
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
