"""On a GPU vLLM steps by Model Runner V2, which prepares embeddings and positions otherwise than the CPU's runner.

It rewrites positions into a buffer of its own at every step, and replays CUDA graphs. So answers must stay those of the
hand-made reference when graphs are captured, when chunks end inside items, and when prefixes come from the cache.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serving.cases import CASES, RATIO, SMALL_RATIO, VIDEO_CASES, expected, prompts, video_prompts
from tests.serving.engines import answers, ask
from tests.serving.reference import divprune_rule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

NAMES = ["llava", "qwen2_5_vl", "qwen3_vl"]
"""Positions that count tokens, coordinates, and coordinates with features for deeper layers."""
PRUNING = {"keep_ratio": RATIO, "allow_request_ratio": True}
MODES: dict[str, dict[str, Any]] = {
    "eager": {},
    "graphs": {"enforce_eager": False},
    "chunks": {"max_num_batched_tokens": 24},
    "graphs and chunks": {"enforce_eager": False, "max_num_batched_tokens": 24},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_answers_equal_the_reference(
    name: str, mode: str, engine: Callable[..., Any], checkpoint: Callable[[str], Path]
) -> None:
    case = CASES[name]
    llm = engine(name, PRUNING, **case.settings | MODES[mode])
    assert llm.llm_engine.vllm_config.use_v2_model_runner
    asked, folder = prompts(case), checkpoint(name)
    wanted = expected(case, folder, asked, divprune_rule(RATIO))
    assert answers(ask(llm, asked)) == wanted
    again = ask(llm, asked)
    assert answers(again) == wanted
    assert sum(output.num_cached_tokens for output in again) >= 32
    fewer = expected(case, folder, asked, divprune_rule(SMALL_RATIO))
    assert answers(ask(llm, asked, keep_ratio=SMALL_RATIO)) == fewer


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_videos(name: str, mode: str, engine: Callable[..., Any], checkpoint: Callable[[str], Path]) -> None:
    case = VIDEO_CASES[name]
    llm, asked = engine(name, PRUNING, **case.settings | MODES[mode]), video_prompts(case)
    assert answers(ask(llm, asked)) == expected(case, checkpoint(name), asked, divprune_rule(RATIO))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_in_the_buffer(mode: str, engine: Callable[..., Any]) -> None:
    """A replayed graph clears it too."""
    case = CASES["qwen2_5_vl"]
    llm = engine("qwen2_5_vl", PRUNING, **case.settings | MODES[mode])
    model = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model
    # With compiled models, the runner may wrap it.
    buffers = [buffer for name, buffer in model.named_buffers() if name.endswith("place_buffer")]
    address = buffers[0].data_ptr()
    ask(llm, prompts(case))
    assert not buffers[0].any()
    assert buffers[0].data_ptr() == address
