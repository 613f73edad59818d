"""Which configurations let kept tokens keep their numbers. vLLM is not needed here; `tests/serving` runs it."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from divprune.vllm_plugin import PruningSettings, pruned_overrides
from divprune.vllm_plugin.positions import POSITIONS_FACTOR, counts_tokens, keep_positions, num_positions


def configuration(rope_type: str | None = "default", uses_mrope: bool = False) -> Any:
    parameters = None if rope_type is None else {"rope_type": rope_type}
    text = SimpleNamespace(max_position_embeddings=100, rope_parameters=parameters)
    return SimpleNamespace(hf_config=SimpleNamespace(), hf_text_config=text, uses_mrope=uses_mrope)


def settings(positions: Any = None) -> PruningSettings:
    return PruningSettings(keep_ratio=0.5, positions=positions)


@pytest.mark.parametrize("positions", [None, "original"])
def test_plain_rope_gets_longer_tables_and_asks_for_positions(positions: Any) -> None:
    config = configuration()
    keep_positions(config, settings(positions))
    assert counts_tokens(config)
    assert config.hf_text_config.max_position_embeddings == 100 * POSITIONS_FACTOR == num_positions(config)
    assert config.hf_text_config.rope_parameters == {"rope_type": "default"}
    assert len(config.hf_config.rope_parameters["mrope_section"]) == 3


def test_compact_changes_nothing() -> None:
    config = configuration()
    keep_positions(config, settings("compact"))
    assert not counts_tokens(config)
    assert config.hf_text_config.max_position_embeddings == 100


@pytest.mark.parametrize("rope_type", ["linear", "yarn", "llama3", None])
def test_other_rope_is_numbered_anew_and_says_so(rope_type: str | None, caplog: pytest.LogCaptureFixture) -> None:
    config = configuration(rope_type)
    with caplog.at_level(logging.WARNING, "vllm.divprune"):
        keep_positions(config, settings())
    assert not counts_tokens(config)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "kept tokens are numbered anew (compact positions)"
    ]
    assert rope_type is None or repr(rope_type) in caplog.text
    with pytest.raises(ValueError, match="positions must be 'compact' or left out for this model, got 'original'"):
        keep_positions(config, settings("original"))


def test_coordinates_stay_as_they_are() -> None:
    config = configuration(uses_mrope=True)
    for positions in (None, "original"):
        keep_positions(config, settings(positions))
    assert not counts_tokens(config)
    assert num_positions(config) == 100 * POSITIONS_FACTOR
    with pytest.raises(ValueError, match="positions must be 'original' or left out for this model, got 'compact'"):
        keep_positions(config, settings("compact"))


def test_settings_carry_positions() -> None:
    model = {"architectures": ["LlavaForConditionalGeneration"]}
    assert pruned_overrides(model, keep_ratio=0.5, positions="compact")["divprune"]["positions"] == "compact"
    assert "positions" not in pruned_overrides(model, keep_ratio=0.5)["divprune"]
    with pytest.raises(ValueError, match="positions must be one of"):
        PruningSettings(keep_ratio=0.5, positions="anew")  # type: ignore[arg-type]
