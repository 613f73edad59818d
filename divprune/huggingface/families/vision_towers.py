"""What is known of vision encoders: their layers, their CLS token, and which patches each visual token is made from.

Only the families listed here can feed such methods; others are refused by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.vision_utils import get_vision_window_index

from divprune.methods.item_context import Modality

NO_PATCH = -1

PatchRule = Callable[[PreTrainedModel, Mapping[str, Any], Modality, int], Tensor]
"""`rule(model, inputs, modality, num_patches)` -> (total, g) int64: for each visual token of the call, the patches it
is made from, numbered in the order in which the encoder's attention sees them, CLS tokens left out; `NO_PATCH` for
tokens that come from none (image newline tokens)."""


@dataclass(frozen=True)
class Tower(ABC):
    """A family's vision encoder.

    Attributes:
        name: of the encoder in the base model.
        projector: path of the projector in the base model.
        projects_patches: whether the projector turns each patch into one token, so that mixtures of patches can be
            projected.
        groups_patches: whether the projector is given all patches of a token as one feature.
        pools_videos: whether squares of a frame's patches are pooled before the projector.
    """

    name: str
    projector: str
    projects_patches: bool = False
    groups_patches: bool = False
    pools_videos: bool = False

    @abstractmethod
    def token_values(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, values: Tensor
    ) -> Tensor:
        """Turn values of a call's patches (P, ...) into values of its tokens (total, ...).

        Args:
            model: the model.
            inputs: of the call.
            modality: what the patches are of.
            values: floating point, in the order in which the encoder's attention sees the patches, CLS tokens left out.

        Returns:
            The mean where several patches make a token; zeros where none does (image newline tokens).
        """

    def of(self, model: PreTrainedModel) -> nn.Module:
        """Return the encoder."""
        return cast(nn.Module, getattr(model.base_model, self.name))

    def projector_of(self, model: PreTrainedModel) -> nn.Module:
        """Return the projector."""
        return model.base_model.get_submodule(self.projector)

    def has_cls_token(self, model: PreTrainedModel) -> bool:
        """Tell whether the first of the tokens in the encoder stands for the whole image."""
        return any(name.endswith(("class_embedding", "cls_token")) for name, _ in self.of(model).named_parameters())

    def cls_features(self, model: PreTrainedModel, output: Any) -> Tensor | None:
        """Read what the projector would make a token of each image's CLS token from, (n, d).

        Args:
            model: the model.
            output: of its encoder.

        Returns:
            None where the projector works on several patches at once, or the encoder's output does not show it.
        """
        layers, states = feature_layers(model), getattr(output, "hidden_states", None)
        if not self.projects_patches or layers is None or states is None:
            return None
        return torch.cat([states[layer][:, 0] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)

    def patches_per_feature(self, model: PreTrainedModel, modality: Modality) -> int:
        """Count how many patches are in one feature that the projector is given."""
        if self.pools_videos and modality == "video":
            stride: int = model.config.spatial_pool_stride
            return stride**2
        return round(1 / model.config.downsample_ratio) ** 2 if self.groups_patches else 1

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the encoder's layers."""
        return next(module for module in self.of(model).modules() if isinstance(module, nn.ModuleList))

    def attention(self, model: PreTrainedModel, layer: int, name: str = "vision_layer") -> nn.Module:
        """Return the attention module of a layer; negative numbers count from the last, and errors call it `name`.

        Where layers look at windows of the image only, the next one that looks at all of it, or the last such one.

        Raises:
            ValueError: there is no such layer.
        """
        layers = self.layers(model)
        if not -len(layers) <= layer < len(layers):
            raise ValueError(f"{name} must be between {-len(layers)} and {len(layers) - 1}, got {layer}")
        index = layer % len(layers)
        whole = getattr(model.config.vision_config, "fullatt_block_indexes", None)
        if whole:
            index = min((full for full in whole if full >= index), default=max(whole))
        children = dict(layers[index].named_children())
        return next(children[name] for name in ("self_attn", "attention", "attn") if name in children)


@dataclass(frozen=True)
class PatchTower(Tower):
    """A vision encoder of whose patches each token is made from a few.

    Attributes:
        patches: which patches each token is made from.
    """

    patches: PatchRule = field(kw_only=True)

    def token_values(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, values: Tensor
    ) -> Tensor:
        """Average over the patches of each token."""
        patches = self.patches(model, inputs, modality, len(values)).to(values.device)
        mean = values[patches.clamp(min=0)].mean(dim=1)
        outside = (patches[:, 0] == NO_PATCH).view(-1, *[1] * (mean.ndim - 1))
        return mean.masked_fill(outside, 0.0)


@dataclass(frozen=True)
class InterpolatedTower(Tower):
    """LLaVA-OneVision's: the tokens of large images and of videos lie between patches, by the model's own packing."""

    def token_values(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, values: Tensor
    ) -> Tensor:
        """Pack values as the model packs features."""
        base: Any = model.base_model
        flat = values.reshape(len(values), -1)
        newline = flat.new_zeros(flat.shape[1])
        if modality == "video":
            videos, frames = inputs["pixel_values_videos"].shape[:2]
            pooled = base.apply_pooling(flat.unflatten(0, (videos * frames, -1))).unflatten(0, (videos, frames))
            packed: Tensor = torch.cat([pooled.flatten(1, 2), newline.expand(videos, 1, -1)], dim=1).flatten(0, 1)
        else:
            tiles = _num_tiles(model, inputs)
            images = flat.unflatten(0, (sum(tiles), -1)).split(tiles)
            ratio = model.config.vision_aspect_ratio
            packed = torch.cat(base.pack_image_features(images, inputs["image_sizes"], newline, ratio)[0])
        return packed.view(-1, *values.shape[1:])


def feature_layers(model: PreTrainedModel) -> int | list[int] | None:
    """Return which of its encoder's hidden states a model's projector is given; None where the config does not say."""
    # ViP-LLaVA's are several, under a name of its own before transformers 5.24.
    names = ("vision_feature_layer", "vision_feature_layers")
    return next((found for name in names if (found := getattr(model.config, name, None)) is not None), None)


def tower_of(model: PreTrainedModel) -> Tower | None:
    """Return the vision encoder of a model; None if nothing is known of it."""
    config: Any = model.config
    tower = TOWERS.get(config.model_type)
    # Pixtral's images share one sequence, kept apart by a mask; and a CLS token among the visual tokens is no patch.
    if tower is None or getattr(config.vision_config, "model_type", None) == "pixtral":
        return None
    keeps_cls_token = getattr(config, "vision_feature_select_strategy", "default") == "full"
    return None if keeps_cls_token and tower.has_cls_token(model) else tower


def _one_to_one(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """LLaVA: every patch becomes a token."""
    return torch.arange(num_patches).unsqueeze(1)


def _anyres(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """LLaVA-NeXT: the model's own packing of tiles, of patch numbers instead of features."""
    config: Any = model.config
    tiles = _num_tiles(model, inputs)
    numbers = torch.arange(num_patches, dtype=torch.float64).view(sum(tiles), -1, 1).split(tiles)
    pack = cast(Callable[..., Any], model.base_model.pack_image_features)
    newline = torch.full((1,), float(NO_PATCH), dtype=torch.float64)
    packed, _ = pack(list(numbers), inputs["image_sizes"], config.vision_feature_select_strategy, newline)
    return torch.cat(list(packed)).long()


def _num_tiles(model: PreTrainedModel, inputs: Mapping[str, Any]) -> list[int]:
    """Count the tiles of each image, the whole of it among them.

    LLaVA-OneVision cuts an image only where it stands alone in its row.
    """
    config: Any = model.config
    side, counts = config.vision_config.image_size, inputs.get("batch_num_images")
    sizes = inputs["image_sizes"]
    alone = [True] * len(sizes) if counts is None else [int(count) == 1 for count in counts for _ in range(int(count))]
    return [
        image_size_to_num_patches(size, config.image_grid_pinpoints, side) if is_cut else 1
        for size, is_cut in zip(sizes, alone, strict=True)
    ]


def _pooled_frames(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """LLaVA-NeXT-Video: images as LLaVA-NeXT; each token of a video is pooled from a square of a frame's patches."""
    if modality == "image":
        return _anyres(model, inputs, modality, num_patches)
    vision, stride = model.config.vision_config, model.config.spatial_pool_stride
    side = vision.image_size // vision.patch_size
    pooled = side // stride
    numbers = torch.arange(num_patches).view(-1, side, side)[:, : pooled * stride, : pooled * stride]
    return numbers.reshape(-1, pooled, stride, pooled, stride).transpose(2, 3).reshape(-1, stride**2)


def _shuffled(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """InternVL: the model's own pixel shuffle, of patch numbers instead of features."""
    vision: Any = model.config.vision_config
    rows, columns = (side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True))
    numbers = torch.arange(num_patches).view(-1, rows, columns, 1)
    shuffle = cast(Callable[..., Tensor], model.base_model.pixel_shuffle)
    shuffled = shuffle(numbers, scale_factor=model.config.downsample_ratio)
    return shuffled.flatten(0, 2)


def _merged(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """Qwen-VL: the patches of a token stand next to each other."""
    return torch.arange(num_patches).view(-1, model.config.vision_config.spatial_merge_size**2)


def _windowed(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """Qwen2.5-VL: the same, but the encoder works in the order of its windows."""
    vision = model.config.vision_config
    sizes = vision.spatial_merge_size, vision.window_size, vision.patch_size
    window_index, _ = get_vision_window_index(inputs[f"{modality}_grid_thw"], *sizes)
    return _merged(model, inputs, modality, num_patches)[window_index.argsort().cpu()]


def _merged_rows(model: PreTrainedModel, inputs: Mapping[str, Any], modality: Modality, num_patches: int) -> Tensor:
    """HY 4: patches stand row by row, and a newline token that comes from none follows each row of tokens."""
    size, start, tokens = model.config.vision_config.spatial_merge_size, 0, []
    for steps, rows, columns in inputs[f"{modality}_grid_thw"].tolist():
        numbers = torch.arange(start, start + steps * rows * columns)
        merged = numbers.view(steps, rows // size, size, columns // size, size).transpose(2, 3).flatten(3)
        newline = merged.new_full((*merged.shape[:2], 1, size**2), NO_PATCH)
        tokens.append(torch.cat([merged, newline], dim=2).flatten(0, 2))
        start += len(numbers)
    return torch.cat(tokens)


PROJECTOR = "multi_modal_projector"
TOWERS: dict[str, Tower] = {
    "llava": PatchTower("vision_tower", PROJECTOR, patches=_one_to_one, projects_patches=True),
    "vipllava": PatchTower("vision_tower", PROJECTOR, patches=_one_to_one, projects_patches=True),
    "llava_next": PatchTower("vision_tower", PROJECTOR, patches=_anyres, projects_patches=True),
    "llava_next_video": PatchTower(
        "vision_tower", PROJECTOR, patches=_pooled_frames, projects_patches=True, pools_videos=True
    ),
    "llava_onevision": InterpolatedTower("vision_tower", PROJECTOR),
    "paligemma": PatchTower("vision_tower", PROJECTOR, patches=_one_to_one, projects_patches=True),
    "internvl": PatchTower("vision_tower", PROJECTOR, patches=_shuffled, groups_patches=True),
    "qwen2_vl": PatchTower("visual", "visual.merger", patches=_merged),
    "qwen2_5_vl": PatchTower("visual", "visual.merger", patches=_windowed),
    "qwen3_vl": PatchTower("visual", "visual.merger", patches=_merged),
    "hy_v4_vl": PatchTower("vision_tower", "vision_tower.patch_merger", patches=_merged_rows),
}
"""By `model.config.model_type`."""
