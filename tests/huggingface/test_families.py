"""Every vision-language class of transformers is either supported, or refused with a reason."""

import re

import pytest
import transformers
from packaging.version import Version
from transformers.models.auto import modeling_auto

from divprune.errors import UnsupportedModelError
from divprune.huggingface import supported_families
from divprune.huggingface.families.registry import family_named
from divprune.huggingface.families.unsupported import NO_CLASS, REASONS, refusal_of
from tests.support.models.every_family import CASES, Case

CLASSES = {
    **modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    **modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
}
SUPPORTED = {family.name for family in supported_families()}


def types_of(model_type: str, name: str) -> set[str]:
    """ShieldGemma 2 is Gemma 3's class: the family is told by either."""
    return {model_type, getattr(transformers, name).config_class.model_type}


@pytest.mark.parametrize(("model_type", "name"), CLASSES.items())
def test_every_class_is_either_supported_or_refused_with_a_reason(model_type: str, name: str) -> None:
    reason = refusal_of(getattr(transformers, name), model_type)
    is_supported = bool(types_of(model_type, name) & SUPPORTED)
    assert reason is not None or is_supported
    # What is read off the class also speaks against some classes of older versions, which the adapter reaches.
    assert reason is None or not is_supported or Version(transformers.__version__) < Version("5.23")


@pytest.mark.parametrize("model_type", [name for name in CLASSES if not types_of(name, CLASSES[name]) & SUPPORTED])
def test_a_checkpoint_is_refused_for_the_same_reason_as_its_model(model_type: str) -> None:
    reason = refusal_of(getattr(transformers, CLASSES[model_type]), model_type)
    with pytest.raises(UnsupportedModelError, match=re.escape(f"no adapter for {model_type!r} ({reason})")):
        family_named(model_type)


@pytest.mark.parametrize("model_type", sorted(CLASSES.keys() - SUPPORTED))
def test_types_that_share_a_class_share_its_family(model_type: str) -> None:
    for family in types_of(model_type, CLASSES[model_type]) & SUPPORTED:
        assert family_named(model_type).name == family


def test_unknown_types_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=re.escape(f"no adapter for 'llama' ({NO_CLASS})")):
        family_named("llama")


def test_every_supported_family_has_a_tiny_model() -> None:
    assert CASES.keys() >= SUPPORTED
    assert not SUPPORTED & REASONS.keys()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_tiny_model_is_of_a_supported_family(case: Case) -> None:
    assert case.build().config.model_type in SUPPORTED
