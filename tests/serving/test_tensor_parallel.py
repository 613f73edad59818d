"""Two processes that share a model keep the same rows."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cases import CASES, RATIO, expected, prompts, transformers_answers
from tests.serving.engines import answers, ask
from tests.serving.reference import divprune_rule

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each process wants a core of its own")


@pytest.fixture(autouse=True)
def one_core_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # else vLLM wants a NUMA node for each


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_two_ranks_answer_as_one(name: str, engine: Callable[..., Any], checkpoint: Callable[[str], Path]) -> None:
    case = CASES[name]
    llm, asked = engine(name, {"keep_ratio": RATIO}, **case.settings, tensor_parallel_size=2), prompts(case)
    assert answers(ask(llm, asked)) == expected(case, checkpoint(name), asked, divprune_rule(RATIO))


def test_heads_are_put_together(engine: Callable[..., Any], checkpoint: Callable[[str], Path]) -> None:
    """PruMerge's attention is one softmax over all heads, of which each rank has one; merged features are projected."""
    case = CASES["llava"]
    pruning = {"keep_ratio": RATIO, "method": "prumerge"}
    llm, asked = engine("llava", pruning, **case.settings, tensor_parallel_size=2), prompts(case)
    _, wanted = transformers_answers("llava", checkpoint("llava"), "prumerge", asked)
    assert [ids for _, ids in answers(ask(llm, asked))] == wanted
