"""The embedded model's architecture: a LLaVA of four million parameters, built from transformers' own classes."""

import math

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from divprune.embedded.scenes import IMAGE_SIZE
from divprune.embedded.vocabulary import IMAGE_TOKEN, WORDS

PATCH_SIZE = 8  # pixels
PATCHES_PER_SIDE = IMAGE_SIZE // PATCH_SIZE
NUM_VISUAL_TOKENS = PATCHES_PER_SIDE**2
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own, as in LLaVA-1.5
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def configuration(width: int = 192, tower_layers: int = 5, language_layers: int = 4) -> LlavaConfig:
    """Return the sizes of the model; `width` is shared by tower and language model and must be a multiple of 64."""
    heads = width // 64
    tower = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=tower_layers,
        num_attention_heads=heads,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="gelu",
    )
    language = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=language_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=WORDS.index("<s>"),
        eos_token_id=WORDS.index("</s>"),
    )
    return LlavaConfig(
        vision_config=tower,
        text_config=language,
        image_token_index=WORDS.index(IMAGE_TOKEN),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=NUM_VISUAL_TOKENS,
        tie_word_embeddings=False,
    )


def build(config: LlavaConfig, seed: int = 0) -> LlavaForConditionalGeneration:
    """Return a fresh model in float32, its tower's position embeddings set to 2-D sines and cosines."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    # On CPUs nearly twice as fast as fused attention, for training at this size.
    model.model.vision_tower.set_attn_implementation("eager")
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.normal_(std=1 / math.sqrt(3 * PATCH_SIZE**2))
        embeddings.position_embedding.weight[1:] = 0.5 * _sine_positions(embeddings.embed_dim)
    return model


@torch.no_grad()
def shrink_residual_stream(model: LlavaForConditionalGeneration, factor: float = 8.0) -> None:
    """Divide everything that adds to the tower's residual stream; its norms then see the same as before.

    Training leaves features some thirty times larger than the projector's initial weights are made for.
    """
    tower = model.model.vision_tower
    writers = [tower.pre_layrnorm]
    for layer in tower.encoder.layers:
        writers += [layer.self_attn.out_proj, layer.mlp.fc2]
    for writer in writers:
        writer.weight /= factor
        writer.bias /= factor


def _sine_positions(width: int) -> torch.Tensor:
    """(NUM_VISUAL_TOKENS, width): a quarter each of sines and cosines of the row and of the column."""
    frequencies = math.pi / 2 / torch.logspace(0, 1.5, width // 4)
    angles = torch.arange(PATCHES_PER_SIDE)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (PATCHES_PER_SIDE, width / 2)
    rows = waves.repeat_interleave(PATCHES_PER_SIDE, dim=0)
    columns = waves.repeat(PATCHES_PER_SIDE, 1)
    return torch.cat([rows, columns], dim=1)


def pixel_values(images: torch.Tensor) -> torch.Tensor:
    """Make of images of the right size what the saved image processor does.

    Args:
        images: (batch, IMAGE_SIZE, IMAGE_SIZE, 3) uint8.

    Returns:
        (batch, 3, IMAGE_SIZE, IMAGE_SIZE) float32, rescaled and normalised.
    """
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]
