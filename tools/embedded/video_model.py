"""The embedded video model's architecture: LLaVA-NeXT-Video with the parts of the embedded model."""

import torch
from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
)

from divprune.embedded.scenes import IMAGE_SIZE
from divprune.embedded.videos import NUM_VIDEO_FRAMES
from divprune.embedded.vocabulary import IMAGE_TOKEN, VIDEO_TOKEN, VIDEO_WORDS, WORDS
from tools.embedded.model import NUM_VISUAL_TOKENS, PATCHES_PER_SIDE, configuration

FRAME_TOKENS = NUM_VISUAL_TOKENS // 4  # 2 x 2 patches are averaged
VIDEO_TOKENS = NUM_VIDEO_FRAMES * FRAME_TOKENS
IMAGE_TOKENS = 2 * NUM_VISUAL_TOKENS + PATCHES_PER_SIDE  # as LLaVA-NeXT reads an image of one tile; not trained

_BEFORE = tuple(VIDEO_WORDS.index(word) for word in ("<s>", "user", ":"))
VIDEO_PREFIX: tuple[int, ...] = (*_BEFORE, *([VIDEO_WORDS.index(VIDEO_TOKEN)] * VIDEO_TOKENS))


def video_configuration(width: int = 192, tower_layers: int = 5, language_layers: int = 4) -> LlavaNextVideoConfig:
    """Return the sizes of the model: those of `configuration`, a larger vocabulary and frames pooled 2 x 2."""
    image = configuration(width, tower_layers, language_layers)
    language = image.text_config
    language.vocab_size = len(VIDEO_WORDS)
    return LlavaNextVideoConfig(
        vision_config=image.vision_config,
        text_config=language,
        image_token_index=VIDEO_WORDS.index(IMAGE_TOKEN),
        video_token_index=VIDEO_WORDS.index(VIDEO_TOKEN),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        image_seq_length=IMAGE_TOKENS,
        video_seq_length=VIDEO_TOKENS,
        tie_word_embeddings=False,
    )


@torch.no_grad()
def build_video(
    image_model: LlavaForConditionalGeneration, config: LlavaNextVideoConfig, seed: int = 0
) -> LlavaNextVideoForConditionalGeneration:
    """Return a model with all weights of the image model; new words and the newline are drawn at the words' scale."""
    torch.manual_seed(seed)
    model = LlavaNextVideoForConditionalGeneration(config)
    model.model.vision_tower.set_attn_implementation("eager")
    model.model.vision_tower.load_state_dict(image_model.model.vision_tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(image_model.model.multi_modal_projector.state_dict())
    known = image_model.model.language_model.state_dict()
    for name, value in model.model.language_model.state_dict().items():
        if name != "embed_tokens.weight":
            value.copy_(known[name])
    words = image_model.get_input_embeddings().weight
    _extend(model.get_input_embeddings(), words)
    _extend(model.lm_head, image_model.lm_head.weight)
    model.model.image_newline.normal_(std=float(words.std()))
    return model


def _extend(layer: nn.Module, known: torch.Tensor) -> None:
    """Set the rows of the known words, and draw the others at their scale."""
    layer.weight.normal_(std=float(known.std()))
    layer.weight[: len(WORDS)] = known


def pooled(features: torch.Tensor) -> torch.Tensor:
    """(frames, NUM_VISUAL_TOKENS, width) to (frames, FRAME_TOKENS, width): what the model's resampler does."""
    side = PATCHES_PER_SIDE // 2
    return features.unflatten(1, (side, 2, side, 2)).mean(dim=(2, 4)).flatten(1, 2)
