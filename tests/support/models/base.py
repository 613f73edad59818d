"""What the tiny models of all families share: sizes, weights that react, and how a family's prompts are written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, PreTrainedModel, SiglipVisionConfig

SOUND, IMAGE, VIDEO = 94, 95, 96
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


def embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(n,) ids -> (n, d) text embeddings; what stands at placeholders does not matter."""
    return model.get_input_embeddings()(ids.masked_fill((ids == IMAGE) | (ids == VIDEO), 0)).clone()


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
        text_row: whether position ids have a row of text positions in front of the coordinates.
        places: `places(ids, items)` gives the coordinates of every column of a row where `cells` is not enough to tell;
            `items` is a list of (columns, cells, index of the item in the call).
        times: whether the text after a video starts behind its last moment too, not only behind its rows and columns.
        block: which tokens see each other both ways: the whole "prefix", unbroken "runs" of visual tokens,
            "sliding runs" where only the layers with a sliding window do so, all of "mm_token_type_ids" 1, or none.
        mixed: whether images and videos may come in one call.
        embeds: `embeds(model, ids)` gives the embeddings of a row's ids.
        adds: whether visual tokens are added to their placeholders' embeddings instead of replacing them.
        positions: what `prune(positions=...)` may be for a family that counts tokens.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    media: Callable[[PreTrainedModel, str, list[int]], Media]
    kinds: tuple[str, ...] = ("image",)
    spell: Callable[[str, Media, int, int], list[int]] = plain
    items: Callable[[PreTrainedModel, str, Media, Any], list[Tensor]] = as_they_are
    types: Callable[[Tensor, tuple[str, ...]], dict[str, Tensor]] = no_types
    cells: Callable[[str, Media, int], list[list[tuple[int, int, int]]]] | None = None
    text_row: bool = True
    places: Callable[[list[int], list[tuple[list[int], Any, int]]], list[tuple[int, ...]]] | None = None
    times: bool = False
    block: str = ""
    mixed: bool = True
    embeds: Callable[[PreTrainedModel, Tensor], Tensor] = embedded
    adds: bool = False
    positions: tuple[str, ...] = ("original", "compact")


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
    model.set_experts_implementation("eager")  # grouped products of experts know no float64
    return model.eval()


def build_model(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config.text_config.attn_implementation = "sdpa"
    return reactive(AutoModelForImageTextToText.from_config(config))


def config_of(name: str, since: str = "0") -> type[Any]:
    """A config class of transformers; the test is skipped where the installed version has none, or one of old."""
    if Version(transformers.__version__) < Version(since):
        pytest.skip(f"{name} needs transformers {since}, this is {transformers.__version__}")
    found = getattr(transformers, f"{name}Config", None)
    if found is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}Config")
    return found


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
