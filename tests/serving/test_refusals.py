"""What cannot be served is refused when the engine starts; requests that cannot be answered leave it as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm import LLM

from divprune.vllm_plugin import pruned_overrides
from tests.serving.cases import CASES, clip_of, expected, picture, prompts
from tests.serving.engines import SETTINGS, answers, ask
from tests.serving.reference import divprune_rule

Checkpoint = Callable[[str], Path]
QWEN = CASES["qwen2_vl"]

EC = {"ec_connector": "ECExampleConnector", "ec_role": "ec_producer"}


def start(folder: Path, pruning: dict[str, Any], **settings: Any) -> LLM:
    return LLM(str(folder), hf_overrides=pruned_overrides(folder, **pruning), **SETTINGS | settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}, "--pipeline-parallel-size above 1"),
        ({"video_pruning_rate": 0.5}, "--video-pruning-rate"),
        ({"enable_mm_embeds": True}, "--enable-mm-embeds"),
        ({"compilation_config": {"cudagraph_mm_encoder": True}}, "cudagraph_mm_encoder"),
        ({"ec_transfer_config": EC}, "--ec-transfer-config"),
        ({"enable_dbo": True}, "dual batch overlap"),
        ({"mm_processor_kwargs": {"keep_ratio": 0.1}}, "keep_ratio in --mm-processor-kwargs"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
            "speculative decoding",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_modes(settings: dict[str, Any], reason: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=f"a pruned model cannot be served with {reason}"):
        start(checkpoint("qwen2_vl"), {"keep_ratio": 0.25}, **settings)


def test_coordinates_are_not_numbered_anew(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="positions must be 'original' or left out for this model, got 'compact'"):
        start(checkpoint("qwen2_vl"), {"keep_ratio": 0.25, "positions": "compact"})


@pytest.mark.parametrize(
    ("method", "reason"),
    [("fastv", "acts inside the LLM"), ("cdpruner", "reads the question"), ("m3", "may keep another")],
)
def test_methods(method: str, reason: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=f"'{method}' cannot be served: it {reason}"):
        start(checkpoint("llava"), {"keep_ratio": 0.25, "method": method})


def test_a_layer_that_the_vision_tower_does_not_have(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="early_layer must be between -3 and 2, got 9"):
        start(checkpoint("llava"), {"keep_ratio": 0.25, "method": "hiprune"})


@pytest.mark.parametrize("wrong", [0, 2, float("nan"), "abc"])
def test_nonsense_ratios_leave_the_engine_as_it_was(wrong: Any, engine: Any, checkpoint: Checkpoint) -> None:
    llm = engine("qwen2_vl", {"keep_ratio": 0.25, "allow_request_ratio": True}, **QWEN.settings)
    asked = prompts(QWEN)[:1]
    with pytest.raises(ValueError, match="keep_ratio must be"):
        ask(llm, asked, keep_ratio=wrong)
    assert answers(ask(llm, asked)) == expected(QWEN, checkpoint("qwen2_vl"), asked, divprune_rule(0.25))


def test_a_larger_ratio_than_the_servers(engine: Any) -> None:
    llm = engine("qwen2_vl", {"keep_ratio": 0.25, "allow_request_ratio": True}, **QWEN.settings)
    with pytest.raises(ValueError, match="a request may keep what the server keeps, at most 9 of 36"):
        ask(llm, prompts(QWEN)[:1], keep_ratio=0.5)


def test_a_number_of_tokens(engine: Any) -> None:
    llm = engine("qwen2_vl", {"num_keep": 5, "allow_request_ratio": True}, **QWEN.settings)
    text, media = prompts(QWEN)[0]
    rest = len(text.split()) + 1  # words, and the marks around the picture
    assert [length for length, _ in answers(ask(llm, [(text, media)]))] == [rest + 5]
    assert [length for length, _ in answers(ask(llm, [(text, media)], num_keep=2))] == [rest + 2]


def test_a_video_longer_than_the_context(engine: Any) -> None:
    llm = engine("qwen2_vl", {"keep_ratio": 0.25}, **QWEN.settings | {"max_model_len": 64})
    frames, known = clip_of(0)
    many = frames.repeat(64, axis=0)
    known = known | {"total_num_frames": len(many), "frames_indices": list(range(len(many)))}
    with pytest.raises(ValueError, match="a video must have at most 64 tokens before pruning"):
        ask(llm, [(f"word3 {QWEN.video} word4", {"video": [(many, known)]})])


def test_a_prompt_that_reaches_beyond_the_tables_of_angles(engine: Any) -> None:
    """The tiny models' tables hold 4 x 4096 positions."""
    settings = QWEN.settings | {"limit_mm_per_prompt": {"image": 600, "video": 0}, "max_model_len": 4096}
    llm = engine("qwen2_vl", {"num_keep": 1}, **settings)
    many = [picture(0)] * 350
    with pytest.raises(ValueError, match="a prompt must have at most 12288 tokens before pruning, got"):
        ask(llm, [(" ".join([QWEN.image] * len(many)), {"image": many})])
