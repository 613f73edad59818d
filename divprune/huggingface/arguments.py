"""The arguments of `attach`, checked."""

from typing import get_args

from transformers import PreTrainedModel

from divprune.budget import Budget
from divprune.huggingface.encoding.method_inputs import require_supply
from divprune.huggingface.families.registry import Family, Positions
from divprune.huggingface.fingerprint import require_same_model
from divprune.huggingface.input_pruning.shorten import Order, Settings
from divprune.huggingface.layer_pruning.checks import require_droppable_layers
from divprune.huggingface.selecting import Scope
from divprune.methods import get_method
from divprune.methods.base import Method


def checked_settings(
    model: PreTrainedModel,
    family: Family,
    method: Method | str,
    keep_ratio: float | None,
    num_keep: int | None,
    scope: Scope,
    order: Order,
    positions: Positions | None,
) -> Settings:
    """The settings that the arguments of `attach` ask for.

    Raises:
        UnsupportedModelError: the model's layers cannot lose tokens half-way.
        CalibrationError: the method was calibrated on another model.
        ValueError: an argument is out of range, or does not apply to this model or method.
    """
    for name, value, allowed in (("scope", scope, Scope), ("order", order, Order), ("positions", positions, Positions)):
        if value not in get_args(allowed) and not (name == "positions" and value is None):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(allowed)))}, got {value!r}")
    if positions == "compact" and family.positions == "original":
        raise ValueError(
            f"positions must be 'original' or None for {family.name!r}, got 'compact': its position ids are "
            "(frame, row, column) coordinates, which must stay with their tokens"
        )
    if positions == "original" and not family.takes_positions:
        raise ValueError(
            f"positions must be 'compact' or None for {family.name!r}, got 'original': its generate() counts the "
            "positions anew"
        )
    chosen = get_method(method) if isinstance(method, str) else method
    if chosen.calibrated_on is not None:
        require_same_model(model, chosen.calibrated_on, f"calibrate {chosen.name!r} again, on this model")
    if chosen.layers:
        require_droppable_layers(model, chosen, order, positions)
    require_supply(model, family, chosen)
    return Settings(chosen, _budget(chosen, keep_ratio, num_keep), scope, order, positions)


def _budget(method: Method, keep_ratio: float | None, num_keep: int | None) -> Budget | None:
    if keep_ratio is None and num_keep is None and method.count in ("adaptive", "schedule"):
        return None
    if method.count != "schedule":
        return Budget(keep_ratio, num_keep)
    raise ValueError(
        f"keep_ratio and num_keep must be left out with {method.name!r}, which says itself how many tokens stay; got "
        f"keep_ratio={keep_ratio}, num_keep={num_keep}"
    )
