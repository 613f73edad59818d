"""Every vision-language class of transformers is either supported, or refused with a reason."""

import pytest
import transformers
from packaging.version import Version
from transformers.models.auto import modeling_auto

from divprune.huggingface import supported_families
from divprune.huggingface.refusals import REASONS, refusal_of
from tests.huggingface.tiny_models import CASES

CLASSES = {
    **modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
}
SUPPORTED = {family.name for family in supported_families()}

# The gap that is left: nothing in these classes is known to stand against pruning, and no tiny model shows that it is
# right. A class leaves this list by a `Case` that passes test_parity.py, or by a reason in refusals.py.
OPEN = {
    "aria", "cohere_compass", "cosmos3_edge", "cosmos3_omni", "deepseek_ocr2", "deepseek_vl_hybrid", "dots3_note",
    "ernie4_5_vl_moe", "exaone4_5", "fast_vlm", "gemma3n", "gemma4_unified", "glm5_next", "got_ocr2",
    "granite_docling", "hunyuan_vl", "hyperclovax_vision_v2", "inkling2", "inkling_mm_model", "kimi_k25", "lfm3_vl",
    "minicpm_ocr", "minicpmv4_6", "minicpmv4_7", "minimax_m3_vl", "mistral_large4", "molmo2", "muse_glimmer",
    "muse_spark", "ovis2", "paddleocr_vl", "perception_lm", "qianfan_ocr", "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker", "qwen4_exp", "step3p7", "unlimited_ocr", "video_llama_3",
}  # fmt: skip


def types_of(model_type: str, name: str) -> set[str]:
    """ShieldGemma 2 is Gemma 3's class: the family is told by either."""
    return {model_type, getattr(transformers, name).config_class.model_type}


@pytest.mark.parametrize(("model_type", "name"), CLASSES.items())
def test_every_class_is_supported_refused_with_a_reason_or_known_to_be_open(model_type: str, name: str) -> None:
    reason = refusal_of(getattr(transformers, name), model_type)
    assert reason is not None or types_of(model_type, name) & (SUPPORTED | OPEN)


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.23"), reason="older versions lack more")
def test_no_class_is_settled_and_open() -> None:
    settled = {
        model_type
        for model_type, name in CLASSES.items()
        if refusal_of(getattr(transformers, name), model_type) or types_of(model_type, name) & SUPPORTED
    }
    assert not settled & OPEN


def test_every_supported_family_has_a_tiny_model() -> None:
    assert {case.build().config.model_type for case in CASES.values()} == SUPPORTED
    assert not SUPPORTED & REASONS.keys()
