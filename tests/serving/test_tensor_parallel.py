"""Two processes that share a model keep the same rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cases import CASES, RATIO, expected, prompts
from tests.serving.engines import answers, ask
from tests.serving.reference import divprune_rule

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each process wants a core of its own")


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_two_ranks_answer_as_one(
    name: str, engine: Callable[..., Any], checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # else vLLM wants a NUMA node for each
    case = CASES[name]
    llm, asked = engine(name, {"keep_ratio": RATIO}, **case.settings, tensor_parallel_size=2), prompts(case)
    assert answers(ask(llm, asked)) == expected(case, checkpoint(name), asked, divprune_rule(RATIO))
