"""A checkpoint to serve: LLaVA-1.5-7B's width with fewer layers and random weights, in the hub's on-disk layout."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedModel, PreTrainedTokenizerFast

from divprune.efficiency import architecture_config, get_architecture, random_inputs, random_model

ARCHITECTURE = "llava-1.5-7b"
TOWER_LAYERS_USED = 23  # of 24: LLaVA reads the last but one
DECODER_LAYERS = 32
NUM_WORDS = 32000
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% elif part['type'] == 'text' %}"
    "{{ part['text'] }} {% endif %}{% endfor %}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Checkpoint:
    """What was written, and what it costs in plain PyTorch on this machine.

    Attributes:
        num_layers: decoder layers.
        num_tower_layers: layers of the vision tower that are computed.
        encoder_seconds: median time of the vision tower and projector, one picture.
        prefill_seconds: median time of the language model on a prompt of one picture and 48 words.
    """

    num_layers: int
    num_tower_layers: int
    encoder_seconds: float
    prefill_seconds: float


def write_checkpoint(folder: Path, num_layers: int) -> Checkpoint:
    """Writes a model whose tower is as much shallower as its language model, with a tokenizer that splits at blanks."""
    config: Any = architecture_config(ARCHITECTURE, num_layers)
    num_tower_layers = max(1, round(TOWER_LAYERS_USED * num_layers / DECODER_LAYERS))
    config.vision_config.num_hidden_layers = num_tower_layers + 1
    model = random_model(config)
    costs = _costs(model)
    model.save_pretrained(folder)
    _as_on_the_hub(folder / "model.safetensors")
    _processor(model).save_pretrained(folder)
    return Checkpoint(num_layers, num_tower_layers, *costs)


@torch.no_grad()
def _costs(model: PreTrainedModel) -> tuple[float, float]:
    inputs = random_inputs(model, get_architecture(ARCHITECTURE), 48)
    pixels: Any = inputs["pixel_values"]
    encoded = model.base_model.get_image_features(pixel_values=pixels, return_dict=True)
    language = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoder = _seconds(lambda: model.base_model.get_image_features(pixel_values=pixels, return_dict=True))
    prefill = _seconds(lambda: model(**language, mm_encoder_outputs={"image": encoded}, logits_to_keep=1))
    return encoder, prefill


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def _as_on_the_hub(path: Path) -> None:
    """The hub's LLaVA checkpoints spell the tower's weights `vision_tower.vision_model.`."""
    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): weight for name, weight in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})


def _processor(model: PreTrainedModel) -> LlavaProcessor:
    config: Any = model.config
    side = config.vision_config.image_size
    words = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, NUM_WORDS)), "<image>"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in special])
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w3"
        ),
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
