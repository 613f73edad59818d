"""A model of any architecture with random weights: what it says is noise, what it costs is not.

Cost does not depend on the values of weights, except for what a method's own work depends on (how far apart the visual
tokens lie), so its inputs are image-like: see `image_like`.
"""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from divprune.efficiency.reference_models import Architecture
from divprune.efficiency.shapes import MERGING_TOWERS

WEIGHT_DEVIATION = 0.02
"""Standard deviation of the weights, as transformers initialises LLaMA and CLIP."""
PICTURE_SIZE = (480, 640)
"""Height and width of the image that a tiling model is shown: the commonest size in COCO."""


def random_model(
    config: PreTrainedConfig, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu", seed: int = 0
) -> PreTrainedModel:
    """Build a model with seeded random weights, never holding more than these weights.

    Args:
        config: of a supported family.
        dtype: of the weights.
        device: where it is built.
        seed: of the weights.

    Returns:
        The model in evaluation mode: matrices and embeddings normal, norms one, biases zero.
    """
    with no_init_weights(), torch.device(device):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for module in model.modules():
        _fill(module, generator)
    model.tie_weights()
    model.eval()
    return model


@torch.no_grad()
def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Give the parameters that a module itself holds their values, in place."""
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            parameter.zero_()
        elif name == "weight" and parameter.ndim == 1:
            parameter.fill_(1)
        else:
            parameter.normal_(0, WEIGHT_DEVIATION, generator=generator)


def image_like(*shape: int, seed: int = 0) -> Tensor:
    """Smooth noise whose amplitude falls as 1/f, as in photographs.

    Args:
        shape: (..., height, width).
        seed: of the noise.

    Returns:
        float32 of that shape; each (height, width) plane has mean 0 and standard deviation 1, as a processor's output.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    vertical, horizontal = torch.fft.fftfreq(shape[-2])[:, None], torch.fft.rfftfreq(shape[-1])
    frequency = (vertical**2 + horizontal**2).sqrt()
    frequency[0, 0] = torch.inf  # no mean
    planes: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=shape[-2:])
    return planes / planes.std(dim=(-2, -1), keepdim=True)


def random_inputs(model: PreTrainedModel, architecture: Architecture, num_text_tokens: int) -> dict[str, Tensor]:
    """Build inputs of one prompt in the paper's set-up: an image-like input among random words.

    Args:
        model: a model of this architecture, of any depth.
        architecture: says whether it is fed an image or a video, and of how many frames.
        num_text_tokens: words of the prompt, at least 2; half of them stand before the image.

    Returns:
        What `model.generate` takes, on the model's device.

    Raises:
        ValueError: `num_text_tokens` is less than 2.
    """
    if num_text_tokens < 2:
        raise ValueError(f"num_text_tokens must be at least 2, got {num_text_tokens}")
    kind = "video" if architecture.frames else "image"
    pixels = _pixels(model, architecture)
    pixels = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in pixels.items()
    }
    with torch.no_grad():
        encoded = getattr(model.base_model, f"get_{kind}_features")(**pixels, return_dict=True)["pooler_output"]
    num_visual_tokens = sum(entry.numel() // entry.shape[-1] for entry in encoded)
    placeholder = getattr(model.config, f"{kind}_token_id")
    words = torch.randint(3, 30000, (num_text_tokens,), generator=torch.Generator().manual_seed(0))
    before, after = words.split([num_text_tokens // 2, num_text_tokens - num_text_tokens // 2])
    ids = torch.cat([before, torch.full((num_visual_tokens,), placeholder), after])[None].to(model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
    if "image_grid_thw" in pixels:
        # From which M-RoPE makes positions.
        inputs["mm_token_type_ids"] = (ids == placeholder).int()
    return inputs


def _pixels(model: PreTrainedModel, architecture: Architecture) -> dict[str, Tensor]:
    if architecture.model_type in MERGING_TOWERS:
        return _patches(model.config.vision_config, isqrt(architecture.usual_tokens))
    side = model.config.vision_config.image_size
    if architecture.frames:
        return {"pixel_values_videos": image_like(1, architecture.frames, 3, side, side).to(model.dtype)}
    if architecture.model_type == "llava_next":
        tiles = image_like(1, architecture.encoder_passes, 3, side, side).to(model.dtype)
        return {"pixel_values": tiles, "image_sizes": torch.tensor([PICTURE_SIZE])}
    return {"pixel_values": image_like(1, 3, side, side).to(model.dtype)}


def _patches(vision: Any, tokens_per_side: int) -> dict[str, Tensor]:
    """Return a square image as Qwen-VL's processors cut it: patches in the order in which the merger joins them."""
    merged, size, frames = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
    side = tokens_per_side * merged
    image = image_like(vision.in_channels, side * size, side * size)
    # An image is a video of the same frame.
    cut = image.view(1, -1, tokens_per_side, merged, size, tokens_per_side, merged, size).expand(frames, *[-1] * 7)
    patches = cut.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(side**2, -1)
    return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, side, side]])}
