"""Training stage 1: the vision tower alone, on dense labels per patch and on what its CLS token says of the image.

The language loss alone does not train a tower in reasonable time; dense labels do.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from divprune.embedded.drawing import render
from divprune.embedded.scenes import Scene, scene
from tools.embedded.labels import CLASS_SIZES, IGNORED, NUM_KINDS, PatchLabels, patch_labels
from tools.embedded.model import pixel_values

_BACKGROUND_WEIGHT = 0.3  # of a background patch against an object's patch
_CENTER_WEIGHT = 4.0  # of a patch with a centre against one without


class TowerHeads(nn.Module):
    """Linear read-outs of the tower, used in this stage only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = {**CLASS_SIZES, "is_center": 1}
        self.norm = nn.LayerNorm(width)
        self.patches = nn.Linear(width, sum(self.sizes.values()))
        self.image = nn.Linear(width, NUM_KINDS)

    def forward(self, patch_features: torch.Tensor, cls_feature: torch.Tensor) -> dict[str, torch.Tensor]:
        """(batch, patches, width) and (batch, width) to logits by label name."""
        logits = self.patches(self.norm(patch_features)).float()
        by_name = dict(zip(self.sizes, logits.split(list(self.sizes.values()), dim=-1), strict=True))
        by_name["present_kinds"] = self.image(cls_feature).float()
        return by_name


def draw_batch(scenes: list[Scene]) -> torch.Tensor:
    """(batch, 3, IMAGE_SIZE, IMAGE_SIZE) float32, as the processor would give them."""
    return pixel_values(torch.from_numpy(np.stack([render(item) for item in scenes])))


def patch_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """(batch, 3, height, width) to (batch, NUM_VISUAL_TOKENS, width): where LLaVA reads the tower, without CLS."""
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    features: torch.Tensor = output.hidden_states[model.config.vision_feature_layer][:, 1:]
    return features


def tower_logits(
    model: LlavaForConditionalGeneration, heads: TowerHeads, pixels: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Logits by label name, and the patch features that they were read from; CLS is read after the last layer."""
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model.vision_tower(pixels, output_hidden_states=True)
        features: torch.Tensor = output.hidden_states[model.config.vision_feature_layer][:, 1:]
        logits: dict[str, torch.Tensor] = heads(features, output.pooler_output)
    return logits, features


def tower_loss(logits: dict[str, torch.Tensor], labels: PatchLabels) -> torch.Tensor:
    """Return the sum of the weighted cross entropies of all labels."""
    kind = labels.classes["kind"]
    weight = torch.where(kind > 0, 1.0, _BACKGROUND_WEIGHT) * (kind != IGNORED)
    total = torch.zeros(())
    for name, target in labels.classes.items():
        losses = functional.cross_entropy(
            logits[name].flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none"
        )
        total = total + (losses * weight.flatten()).sum() / weight.sum()
    center_weight = (1 + (_CENTER_WEIGHT - 1) * labels.is_center) * torch.where(kind == 0, 0.1, 1.0)
    center = functional.binary_cross_entropy_with_logits(
        logits["is_center"].squeeze(-1), labels.is_center, center_weight, reduction="sum"
    )
    image = functional.binary_cross_entropy_with_logits(logits["present_kinds"], labels.present_kinds)
    return total + center / center_weight.sum() + 4 * image


class TowerStage:
    """What the training loop needs of stage 1."""

    name = "tower"

    def __init__(self, model: LlavaForConditionalGeneration, batch_size: int = 32) -> None:
        self.model = model
        self.heads = TowerHeads(model.model.vision_tower.config.hidden_size)
        self.batch_size = batch_size
        self.trained = nn.ModuleDict({"tower": model.model.vision_tower, "heads": self.heads})

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss on the step's own fresh scenes."""
        first = step * self.batch_size
        scenes = [scene(seed, "train") for seed in range(first, first + self.batch_size)]
        logits, _ = tower_logits(self.model, self.heads, draw_batch(scenes))
        return tower_loss(logits, patch_labels(scenes))

    @torch.no_grad()
    def scores(self, num_scenes: int = 128) -> dict[str, float]:
        """Shares right on validation scenes: object patches per label, centres found, image-level kinds."""
        scenes = [scene(seed, "validation") for seed in range(num_scenes)]
        labels = patch_labels(scenes)
        logits, _ = tower_logits(self.model, self.heads, draw_batch(scenes))
        kind = labels.classes["kind"]
        right = {
            name: (logits[name].argmax(-1) == target)[kind > 0].float().mean().item()
            for name, target in labels.classes.items()
        }
        background = (logits["kind"].argmax(-1) == 0)[kind == 0].float().mean().item()
        found = ((logits["is_center"].squeeze(-1) > 0) == (labels.is_center > 0)).all(dim=1).float().mean().item()
        kinds = ((logits["present_kinds"] > 0) == (labels.present_kinds > 0)).all(dim=1).float().mean().item()
        return {**right, "background": background, "all_centers": found, "all_kinds_by_cls": kinds}
