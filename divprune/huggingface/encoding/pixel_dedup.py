"""Let the vision encoder encode parts of an image once that have the same pixels as their neighbours.

image / video -> **vision encoder, on fewer units** -> projector -> visual tokens. For encoders that take patches of
native resolution; which units are left out is in `pixel_prediction`. A hook in front of the encoder takes their patches
out, and hands it what it would work out from the grid for those that stay:

    pixels      a a b      encoded  a . b     tokens  A A B
                a c c               . c .             A C C
    positions   0 1 2               0 . 2     (row and column in the full grid, rotary and learned alike)

A hook behind it puts a copy of the token of the unit that was encoded instead (A, C) in each gap, so that tokens and
placeholders still match. Where nothing is redundant, neither changes anything.

Where something is, the tokens that stay are not those of the whole image, and cannot be: attention counted each of n
equal patches, with a rotary position of its own, and counts one now; no weight in the softmax makes up for n positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from divprune.encoder_options import PixelDedup
from divprune.errors import UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.pixel_prediction import encoded_instead

DEDUPLICATED = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker",
    "qwen4_exp",
    "cosmos3_omni",
    "cohere_compass",
    "exaone4_5",
)
"""Model types whose vision encoder takes patches of native resolution, and positions and windows by name."""


@dataclass
class EncodedUnits:
    """What one pass of the vision encoder did with the units of its images or videos; empty before it.

    Attributes:
        left: (n,) int64, ascending: which of all tokens of the pass were encoded.
        patches: (P,) int64: for each patch of the full grid, in the order in which the encoder's attention sees them,
            which of the encoded patches stands for it.
    """

    left: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    patches: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def require_dedup(adapter: ModelAdapter) -> None:
    """Refuse a model whose vision encoder cannot be run on a part of its patches.

    Raises:
        UnsupportedModelError: its family is none of `DEDUPLICATED`.
    """
    if adapter.model.config.model_type not in DEDUPLICATED:
        raise UnsupportedModelError(
            f"encoder option {PixelDedup.name!r} cannot be used with {adapter.family.name!r} models: it needs a vision "
            f"encoder that takes patches of native resolution, as in {', '.join(DEDUPLICATED)}; leave `encoder` out"
        )


@contextmanager
def deduplicating(adapter: ModelAdapter, option: PixelDedup) -> Iterator[EncodedUnits]:
    """Encode units of identical pixels once, for one pass of the vision encoder; the model is as before on exit.

    Args:
        adapter: the model.
        option: how alike two units must be, in the encoder's precision: in bfloat16 neighbouring shades can be one.

    Yields:
        What the pass did, filled in while it runs.

    Raises:
        UnsupportedModelError: the model's encoder cannot do this.
    """
    require_dedup(adapter)
    tower: Any = adapter.model.base_model.visual
    run = _Pass(tower, option, EncodedUnits())
    handles = (
        tower.register_forward_pre_hook(run.shorten, with_kwargs=True),
        tower.register_forward_hook(run.lengthen),
    )
    try:
        yield run.done
    finally:
        for handle in handles:
            handle.remove()


class _Pass:
    """One pass of a vision encoder on the units that stay."""

    def __init__(self, tower: Any, option: PixelDedup, done: EncodedUnits) -> None:
        self._tower, self._option, self.done = tower, option, done
        self._side = int(tower.spatial_merge_size)
        self._copied: Tensor | None = None  # (M,) rows of the shortened output; None where nothing is redundant

    def shorten(
        self, _: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take out the patches (P, v) of redundant units, and say where the others lie."""
        (pixels,), grids = args, options["grid_thw"]
        self._copied = None
        in_units = [(frames, rows // self._side, columns // self._side) for frames, rows, columns in grids.tolist()]
        num_units = sum(map(prod, in_units))
        if len(pixels) != num_units * self._side**2:
            return None  # the encoder says what is wrong
        units = pixels.reshape(num_units, -1)
        instead = encoded_instead(units, in_units, self._window_side, self._option.tolerance)
        stays = instead == torch.arange(num_units, device=units.device)
        order, windows = self._order(grids, num_units)
        self.done.left = stays.nonzero().squeeze(1)
        self.done.patches = self._of_patches(_ranks(stays, order)[instead[order]])
        if len(self.done.left) == num_units:
            return None
        ranks = stays.cumsum(0) - 1
        self._copied = ranks[instead]
        kept = self._of_patches(self.done.left)
        places = {
            "position_ids": get_vision_position_ids(grids, self._side)[kept],
            "cu_seqlens": self._shortened(get_vision_cu_seqlens(grids), stays),
        }
        if windows is not None:
            places["window_index"] = ranks[order[stays[order]]]
            places["cu_window_seqlens"] = self._shortened(windows, stays[order])
        if hasattr(self._tower, "pos_embed"):
            indices, weights = self._interpolation(grids)
            places |= {"interp_indices": indices[kept], "interp_weights": weights[kept]}
        return (pixels[kept],), options | places

    def lengthen(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """Copy what was encoded instead to each redundant unit of the tokens, (n, d) -> (M, d)."""
        if self._copied is None:
            return
        output["pooler_output"] = output["pooler_output"][self._copied]
        # Qwen3-VL's, for deeper decoder layers.
        if output.get("deepstack_features") is not None:
            output["deepstack_features"] = [each[self._copied] for each in output["deepstack_features"]]

    @property
    def _window_side(self) -> int | None:
        """Rows and columns of units in a window; None where all layers see whole frames."""
        if not hasattr(self._tower, "window_size"):
            return None
        return int(self._tower.window_size // self._side // self._tower.patch_size)

    def _order(self, grids: Tensor, num_units: int) -> tuple[Tensor, Tensor | None]:
        """Return the units (M,) in the order in which the encoder works, and where its windows begin, in patches."""
        if self._window_side is None:
            return torch.arange(num_units, device=grids.device), None
        order, windows = get_vision_window_index(grids, self._side, self._tower.window_size, self._tower.patch_size)
        return order.to(grids.device), windows

    def _interpolation(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Which learned positions each patch is between, and how near to each, (P, 4) both."""
        tower = self._tower
        return get_vision_interpolation_indices_and_weights(
            grids,
            tower.num_grid_per_side,
            tower.interpolation_mode,
            tower.interpolation_align_corners,
            self._side,
        )

    def _of_patches(self, units: Tensor) -> Tensor:
        """Return the indices of the patches of units (n,)."""
        within = torch.arange(self._side**2, device=units.device)
        return (units.unsqueeze(1) * self._side**2 + within).flatten()

    def _shortened(self, boundaries: Tensor, stays: Tensor) -> Tensor:
        """Boundaries (s + 1,) in patches of all units -> in patches of those that stay."""
        before = functional.pad(stays.cumsum(0), (1, 0))
        return (before[boundaries.long() // self._side**2] * self._side**2).to(boundaries.dtype)


def _ranks(stays: Tensor, order: Tensor) -> Tensor:
    """Count for each unit those before it in an order that stay, (M,)."""
    ranks = torch.empty_like(order)
    ranks[order] = stays[order].cumsum(0) - 1
    return ranks
