"""The few things that differ between model families; everything else is generic.

A family is supported once it is listed here: CONTRIBUTING.md says how to add one.
"""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import transformers
from packaging.version import Version
from transformers import GenerationMixin, PreTrainedModel

from divprune.config import Positions
from divprune.errors import UnsupportedModelError
from divprune.huggingface.families.anyres_layouts import anyres_layout, next_video_layout, onevision_layout
from divprune.huggingface.families.item_sizes import (
    ItemSizes,
    run_sizes,
    slice_sizes,
    spaced_run_sizes,
    tile_sizes,
    video_sizes,
)
from divprune.huggingface.families.layout_rules import (
    LayoutRule,
    gemma4_layout,
    llava_layout,
    no_layout,
    qwen_layout,
    ragged_layout,
    row_break_layout,
    square_layout,
    tiled_layout,
    video_llava_layout,
)
from divprune.huggingface.families.unsupported import REASONS, class_of, refusal_of, refusal_of_type
from divprune.methods.item_context import Modality

PLACEHOLDERS: dict[Modality, str] = {"image": "image_token_id", "video": "video_token_id"}


@dataclass(frozen=True)
class Family:
    """What pruning needs to know of one model family.

    Attributes:
        name: `model.config.model_type`.
        modalities: the media whose tokens can be pruned.
        layout: the places of one item's tokens in the image, see `layout_rules.LayoutRule`.
        example: a public checkpoint of the family.
        item_sizes: how many of the encoder's tokens belong to each item, see `item_sizes.ItemSizes`; None where the
            encoder hands over one entry an item.
        placeholders: which entry of the model's configuration holds the id of a modality's placeholders.
        has_coordinates: whether positions are (frame, row, column) coordinates (M-RoPE); else they count tokens.
        takes_positions: whether `generate` hands position ids to the language model.
        since: the first transformers version whose class is known to be right; empty for every supported one.
        first_position: the number of a prompt's first token where positions count tokens.
        has_typed_blocks: whether `token_type_ids` say which visual tokens see each other both ways.
        fresh_images_only: why images cannot come in on a kept cache; empty if they can.
        positions: the default of `prune(positions=...)`.
    """

    name: str
    modalities: tuple[Modality, ...]
    layout: LayoutRule
    example: str
    item_sizes: ItemSizes | None = None
    placeholders: dict[Modality, str] = field(default_factory=PLACEHOLDERS.copy)
    has_coordinates: bool = False
    takes_positions: bool = True
    since: str = ""
    first_position: int = 0
    has_typed_blocks: bool = False
    fresh_images_only: str = ""
    positions: Positions = field(init=False)

    def __post_init__(self) -> None:
        """Let tokens keep their numbers wherever `generate` takes position ids."""
        object.__setattr__(self, "positions", "original" if self.takes_positions else "compact")

    @property
    def cuts_tiles(self) -> bool:
        """Whether images may be several tiles, and layouts or the encoder's entries tell which token is of which."""
        return self.name in CUT_INTO_TILES

    @property
    def tells_newlines(self) -> bool:
        """Whether its layout tells image newline tokens from others."""
        return self.layout in (anyres_layout, next_video_layout, onevision_layout, row_break_layout)


IMAGE: tuple[Modality, ...] = ("image",)
BOTH: tuple[Modality, ...] = ("image", "video")
CUT_INTO_TILES = (
    "llava_next", "llava_next_video", "llava_onevision", "internvl", "aya_vision", "cohere2_vision",
    "idefics3", "smolvlm", "aria", "ovis2", "qianfan_ocr", "perception_lm", "granite_docling",
)  # fmt: skip
ONE_PLACEHOLDER: dict[Modality, str] = {"image": "image_token_id", "video": "image_token_id"}

FAMILIES = (
    Family("llava", IMAGE, llava_layout, "llava-hf/llava-1.5-7b-hf"),
    Family("llava_next", IMAGE, anyres_layout, "llava-hf/llava-v1.6-mistral-7b-hf"),
    Family("llava_next_video", BOTH, next_video_layout, "llava-hf/LLaVA-NeXT-Video-7B-hf"),
    Family("llava_onevision", BOTH, onevision_layout, "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    Family("vipllava", IMAGE, llava_layout, "llava-hf/vip-llava-7b-hf"),
    Family("video_llava", BOTH, video_llava_layout, "LanguageBind/Video-LLaVA-7B-hf", video_sizes),
    Family("mistral3", IMAGE, ragged_layout, "mistralai/Mistral-Small-3.1-24B-Instruct-2503"),
    Family("internvl", IMAGE, tiled_layout, "OpenGVLab/InternVL3-1B-hf", run_sizes),
    Family("aya_vision", IMAGE, tiled_layout, "CohereForAI/aya-vision-8b", tile_sizes),
    Family("cohere2_vision", IMAGE, tiled_layout, "CohereLabs/command-a-vision-07-2025", run_sizes),
    Family("deepseek_vl", IMAGE, square_layout, "deepseek-community/deepseek-vl-1.3b-chat"),
    Family("lighton_ocr", IMAGE, ragged_layout, "lightonai/LightOnOCR-1B-1025"),
    Family("lfm2_vl", IMAGE, no_layout, "LiquidAI/LFM2-VL-1.6B"),
    Family("idefics2", IMAGE, no_layout, "HuggingFaceM4/idefics2-8b", run_sizes),
    Family("idefics3", IMAGE, tiled_layout, "HuggingFaceM4/Idefics3-8B-Llama3", tile_sizes),
    Family("smolvlm", IMAGE, tiled_layout, "HuggingFaceTB/SmolVLM2-2.2B-Instruct", tile_sizes),
    Family("paligemma", IMAGE, square_layout, "google/paligemma2-3b-mix-224", first_position=1),
    Family("gemma3", IMAGE, square_layout, "google/gemma-3-4b-it", has_typed_blocks=True),
    Family("gemma4", BOTH, gemma4_layout, "google/gemma-4-e2b-it"),
    Family("qwen2_vl", BOTH, qwen_layout, "Qwen/Qwen2-VL-7B-Instruct", has_coordinates=True),
    Family("qwen2_5_vl", BOTH, qwen_layout, "Qwen/Qwen2.5-VL-7B-Instruct", has_coordinates=True),
    Family("qwen3_vl", BOTH, qwen_layout, "Qwen/Qwen3-VL-4B-Instruct", has_coordinates=True),
    Family("qwen3_vl_moe", BOTH, qwen_layout, "Qwen/Qwen3-VL-30B-A3B-Instruct", has_coordinates=True),
    Family("qwen3_5", BOTH, qwen_layout, "Qwen/Qwen3.5-27B", has_coordinates=True),
    Family("qwen3_5_moe", BOTH, qwen_layout, "Qwen/Qwen3.5-35B-A3B", has_coordinates=True),
    Family(
        "glm4v", BOTH, qwen_layout, "zai-org/GLM-4.1V-9B-Thinking", placeholders=ONE_PLACEHOLDER, has_coordinates=True
    ),
    Family("glm4v_moe", BOTH, qwen_layout, "zai-org/GLM-4.5V", placeholders=ONE_PLACEHOLDER, has_coordinates=True),
    Family("glm46v", BOTH, qwen_layout, "zai-org/GLM-4.6V", placeholders=ONE_PLACEHOLDER, has_coordinates=True),
    Family("aria", IMAGE, no_layout, "rhymes-ai/Aria", run_sizes),
    Family("ovis2", IMAGE, no_layout, "thisisiron/Ovis2-1B-hf", spaced_run_sizes),
    Family("got_ocr2", IMAGE, square_layout, "stepfun-ai/GOT-OCR-2.0-hf"),
    Family("deepseek_vl_hybrid", IMAGE, square_layout, "deepseek-community/deepseek-vl-7b-chat"),
    Family("qianfan_ocr", IMAGE, tiled_layout, "baidu/Qianfan-OCR", run_sizes),
    Family("fast_vlm", IMAGE, square_layout, "KamilaMila/FastVLM-7B"),
    Family("perception_lm", BOTH, no_layout, "facebook/Perception-LM-1B", run_sizes),
    Family("video_llama_3", BOTH, no_layout, "lkhl/VideoLLaMA3-2B-Image-HF"),
    Family("exaone4_5", BOTH, qwen_layout, "LGAI-EXAONE/EXAONE-4.5-33B", takes_positions=False),
    Family(
        "hyperclovax_vision_v2",
        BOTH,
        qwen_layout,
        "naver-hyperclovax/HyperCLOVAX-SEED-Think-32B",
        takes_positions=False,
    ),
    Family("kimi_k25", IMAGE, no_layout, "moonshotai/Kimi-K2.6"),
    Family("lfm3_vl", BOTH, qwen_layout, "LiquidAI/LFM3-VL-2B"),
    Family("muse_glimmer", BOTH, no_layout, "meta-models/Muse-Glimmer-30B"),
    Family("paddleocr_vl", IMAGE, no_layout, "PaddlePaddle/PaddleOCR-VL", has_coordinates=True),
    Family("cosmos3_edge", BOTH, no_layout, "nvidia/Cosmos3-Edge", since="5.23", has_coordinates=True),
    Family("cosmos3_omni", BOTH, qwen_layout, "nvidia/Cosmos3-Nano", has_coordinates=True),
    Family("cohere_compass", BOTH, qwen_layout, "CohereLabs/North-Micro-Vision-Instruct", has_coordinates=True),
    Family("ernie4_5_vl_moe", BOTH, no_layout, "baidu/ERNIE-4.5-VL-28B-A3B-PT", has_coordinates=True),
    Family("qwen2_5_omni_thinker", BOTH, qwen_layout, "Qwen/Qwen2.5-Omni-7B", has_coordinates=True),
    Family("qwen3_omni_moe_thinker", BOTH, qwen_layout, "Qwen/Qwen3-Omni-30B-A3B-Instruct", has_coordinates=True),
    Family("deepseek_ocr2", IMAGE, no_layout, "deepseek-community/DeepSeek-OCR-2"),
    Family("unlimited_ocr", IMAGE, no_layout, "baidu/Unlimited-OCR"),
    Family("step3p7", IMAGE, no_layout, "stepfun-ai/Step-3.7-Flash"),
    Family("granite_docling", IMAGE, no_layout, "ibm-granite/granite-for-docling-500m", tile_sizes),
    Family("minicpmv4_6", IMAGE, no_layout, "openbmb/MiniCPM-V-4.6", slice_sizes, since="5.23"),
    Family("minicpm_ocr", IMAGE, no_layout, "openbmb/MiniCPM-OCR-1.0", slice_sizes),
    Family("minicpmv4_7", IMAGE, no_layout, "openbmb/MiniCPM-V-4.7-1B", slice_sizes, has_coordinates=True),
    Family(
        "hunyuan_vl",
        IMAGE,
        no_layout,
        "tencent/HunyuanOCR",
        run_sizes,
        has_coordinates=True,
        fresh_images_only="it numbers the images of a call from 0, and a cache does not say how many it holds",
    ),
    Family("gemma3n", IMAGE, square_layout, "google/gemma-3n-E4B"),
    Family("gemma4_unified", BOTH, no_layout, "google/gemma-4-12B-it"),
    Family("molmo2", BOTH, no_layout, "allenai/Molmo2-8B", placeholders=ONE_PLACEHOLDER),
    Family("mistral_large4", IMAGE, ragged_layout, "mistralai/Mistral-Large-4-1T-A52B"),
    Family("dots3_note", BOTH, no_layout, "dots-studio/dots3-note-prev"),
    Family("muse_spark", BOTH, no_layout, "meta-models/Muse-Spark-Open-816B-A42B"),
    Family(
        "glm5_next",
        BOTH,
        qwen_layout,
        "zai-org/GLM-5.3-Flash",
        placeholders=ONE_PLACEHOLDER,
        takes_positions=False,
    ),
    Family("qwen4_exp", BOTH, qwen_layout, "Qwen/Qwen4-Exp", has_coordinates=True),
    Family("inkling_mm_model", IMAGE, no_layout, "thinkingmachines/Inkling", run_sizes, takes_positions=False),
    Family("inkling2", IMAGE, no_layout, "thinkingmachines/Inkling-2-Small-MXFP8", takes_positions=False),
    Family("inkling2_loop", IMAGE, no_layout, "thinkingmachines/Inkling-2-Mini", takes_positions=False),
    Family("apertus1p5", IMAGE, ragged_layout, "swiss-ai/Apertus-v1.5-8B"),
    Family("hy_v4_vl", BOTH, row_break_layout, "tencent/Hy4", has_coordinates=True),
    Family("glm_ocr", BOTH, qwen_layout, "zai-org/GLM-OCR", placeholders=ONE_PLACEHOLDER, has_coordinates=True),
)


def supported_families() -> tuple[Family, ...]:
    """Return the model families that can be pruned."""
    return FAMILIES


def family_named(model_type: str) -> Family:
    """Return the family of a checkpoint.

    Args:
        model_type: as in its config.json.

    Raises:
        UnsupportedModelError: no family is listed for the type; with the reason, where there is one.
    """
    family = _listed(model_type)
    if family is None and model_type not in REASONS:
        family = _family_of_class(class_of(model_type))
    return family or _refuse(model_type, refusal_of_type(model_type))


def family_of(model: PreTrainedModel) -> Family:
    """Return the family of a model.

    Raises:
        UnsupportedModelError: no family is listed for the model's type; with the reason, where the model gives one.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"model must be a transformers model, got {type(model).__name__}{_within(model)}")
    family = _listed(model_type) or _family_of_class(type(model))
    if family is not None and not isinstance(model, GenerationMixin):
        raise UnsupportedModelError(
            f"model must be one that generates, got {type(model).__name__}, the body of {family.name!r} without its "
            "head: load it with AutoModelForImageTextToText and attach to that"
        )
    return family or _refuse(model_type, refusal_of(type(model), model_type))


def _within(model: Any) -> str:
    """Tell where a model that something wraps is to be found."""
    for name in ("_orig_mod", "module", "model"):
        if isinstance(getattr(model, name, None), PreTrainedModel):
            compiled = "; to compile it, write model.forward = torch.compile(model.forward) before"
            return f"; attach to its .{name}{compiled if name == '_orig_mod' else ''}"
    return ""


def _listed(model_type: str) -> Family | None:
    family = next((family for family in FAMILIES if family.name == model_type), None)
    if family is not None and family.since and Version(transformers.__version__) < Version(family.since):
        raise UnsupportedModelError(
            f"{model_type!r} needs transformers {family.since} or newer, got {transformers.__version__}: its class "
            "there handles positions or images otherwise"
        )
    return family


def _family_of_class(model_class: type[Any] | None) -> Family | None:
    """Look up the family by class, which types may share: ShieldGemma 2 is a Gemma 3."""
    config_class = getattr(model_class, "config_class", None)
    return None if config_class is None else _listed(config_class.model_type)


def _refuse(model_type: str, reason: str | None) -> NoReturn:
    because = f" ({reason})" if reason else ""
    raise UnsupportedModelError(
        f"no adapter for {model_type!r}{because}; `divprune families` lists the {len(FAMILIES)} that are supported"
    )
