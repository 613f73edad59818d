"""Engines in the test's own process, one at a time."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

from divprune.vllm_plugin import pruned_overrides
from tests.serving.reference import Media

NUM_TOKENS = 12
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 1024,
    "max_num_seqs": 8,
    # Short prompts fill blocks, so that there are prefixes to reuse.
    "block_size": 32,
    "seed": 0,
}

Prompt = tuple[str, Media]


class Engines:
    def __init__(self, checkpoint: Callable[[str], Path]) -> None:
        # vLLM looks at a model's class in a process of its own, so that CUDA stays untouched; that takes ten seconds
        # for each. Servers, batches and the guide's code do it as always.
        registry._run_in_subprocess = lambda look: look()
        self.checkpoint = checkpoint
        self.current: tuple[Any, LLM] | None = None

    def start(self, name: str, pruning: dict[str, Any] | None = None, **settings: Any) -> LLM:
        """An engine of a family; `pruning` are arguments of `pruned_overrides`, None serves it unpruned."""
        key = (name, repr(pruning), repr(settings))
        if self.current is None or self.current[0] != key:
            self.stop()
            folder = self.checkpoint(name)
            overrides = {} if pruning is None else pruned_overrides(folder, **pruning)
            self.current = (key, LLM(str(folder), hf_overrides=overrides, **SETTINGS | settings))
        return self.current[1]

    def stop(self) -> None:
        if self.current is not None:
            self.current[1].llm_engine.engine_core.shutdown()
        self.current = None
        gc.collect()
        cleanup_dist_env_and_memory()


def ask(llm: LLM, prompts: list[Prompt], **processor_kwargs: Any) -> list[Any]:
    """What the engine returns for a batch."""
    requests = [request(text, media, processor_kwargs) for text, media in prompts]
    return llm.generate(requests, GREEDY, use_tqdm=False)


def request(text: str, media: Media, processor_kwargs: dict[str, Any]) -> dict[str, Any]:
    given = {kind: items for kind, items in media.items() if items}
    asked: dict[str, Any] = {"prompt": text, "multi_modal_data": given}
    return asked | ({"mm_processor_kwargs": processor_kwargs} if processor_kwargs else {})


def answers(outputs: list[Any]) -> list[tuple[int, list[int]]]:
    """The length of each prompt as the language model saw it, and the ids of the answer."""
    return [(len(output.prompt_token_ids), list(output.outputs[0].token_ids)) for output in outputs]
