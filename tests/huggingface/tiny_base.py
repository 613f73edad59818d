"""What the tiny models of all families share: sizes, weights that react, and how a family's prompts are written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, PreTrainedModel, SiglipVisionConfig

IMAGE, VIDEO = 95, 96
TEXT_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
VOCABULARY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}

Media = dict[str, Any]


def as_they_are(model: PreTrainedModel, kind: str, inputs: Media, entries: Any) -> list[Tensor]:
    """The encoder hands over one entry an item."""
    return list(entries)


def plain(kind: str, inputs: Media, index: int, count: int) -> list[int]:
    return [IMAGE if kind == "image" else VIDEO] * count


def no_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    return {}


def mm_types(ids: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    return {"mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int()}


@dataclass(frozen=True)
class Case:
    """A model and how its inputs are made.

    Attributes:
        name: of the case; the model's type, with a suffix for a second case of the type.
        build: the model.
        media: `media(model, kind, counts)` gives the pixels of the items of a batch; `counts` has one number a row.
        kinds: "image", "video".
        spell: `spell(kind, inputs, index, count)` gives an item's ids, placeholders and what stands between them.
        items: `items(model, kind, inputs, entries)` cuts the encoder's entries into one tensor an item.
        types: `types(ids, kinds)` gives the token type inputs.
        cells: `cells(kind, inputs, index)` gives an item's M-RoPE coordinates, one list of (t, h, w) a stretch of
            placeholders that starts where the text before it ends; None for models that count tokens.
        block: which tokens see each other both ways: the whole "prefix", unbroken "runs" of visual tokens,
            "sliding runs" where only the layers with a sliding window do so, or none.
        mixed: whether images and videos may come in one call.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    media: Callable[[PreTrainedModel, str, list[int]], Media]
    kinds: tuple[str, ...] = ("image",)
    spell: Callable[[str, Media, int, int], list[int]] = plain
    items: Callable[[PreTrainedModel, str, Media, Any], list[Tensor]] = as_they_are
    types: Callable[[Tensor, tuple[str, ...]], dict[str, Tensor]] = no_types
    cells: Callable[[str, Media, int], list[list[tuple[int, int, int]]]] | None = None
    block: str = ""
    mixed: bool = True


def reactive(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights with activations and logits of order one, so that every visual token matters to the output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                gain = 1.0 if "embed" in name else 1.4 / fan_in**0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
        model.lm_head.weight.mul_(2.5)
    model.generation_config.eos_token_id = None
    return model.eval()


def build_model(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config.text_config.attn_implementation = "sdpa"
    return reactive(AutoModelForImageTextToText.from_config(config))


def clip(size: int, patch_size: int = 7) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=size, patch_size=patch_size, projection_dim=32,
    )  # fmt: skip


def siglip(size: int, patch_size: int = 7) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        image_size=size, patch_size=patch_size, vision_use_head=False,
    )  # fmt: skip


def llama() -> LlamaConfig:
    return LlamaConfig(**TEXT_SIZES, **VOCABULARY, num_key_value_heads=2)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def square_media(model: PreTrainedModel, kind: str, counts: list[int]) -> Media:
    size = model.config.vision_config.image_size
    return {"pixel_values": noise(sum(counts), 3, size, size, seed=sum(counts))}
