"""The line that says what a server that is ready gives: its address, tokens of an image, requests that fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from divprune.vllm_plugin.addresses import client_address
from divprune.vllm_plugin.processor import MODALITIES, budget_field

TEXT_TOKENS = 128
"""Of the request that is counted: the question and its answer."""


@dataclass(frozen=True)
class KVCache:
    """What a server's KV cache holds.

    Attributes:
        num_tokens: Of all requests together.
        block_size: Tokens of a block; a request takes whole ones.
        max_model_len: Tokens that one request may have.
    """

    num_tokens: int
    block_size: int
    max_model_len: int

    def num_requests(self, length: int) -> int:
        """Return how many requests of a length fit at once; none if one of them is too long."""
        num_blocks = -(-length // self.block_size)
        return 0 if length > self.max_model_len else self.num_tokens // (num_blocks * self.block_size)


def ready_line(state: Any) -> str:
    """Return the line.

    Args:
        state: vLLM's state of a server whose engine is there.
    """
    arguments, config = state.args, state.vllm_config
    address = client_address(
        arguments.host or "",
        arguments.port,
        uds=arguments.uds,
        has_tls=bool(arguments.ssl_certfile or arguments.ssl_keyfile),
    )
    cache = KVCache(
        config.cache_config.kv_cache_size_tokens, config.cache_config.block_size, config.model_config.max_model_len
    )
    parts = [f"ready: {address} serves {config.model_config.served_model_name}"]
    for modality, whole, kept in _largest_items(config.model_config):
        parts.append(f"the largest {modality} keeps {kept} of its {whole} tokens")
        parts.append(gain(modality, whole, kept, cache, config.scheduler_config.max_num_seqs))
    return "; ".join(parts)


def gain(modality: str, whole: int, kept: int, cache: KVCache, max_num_seqs: int) -> str:
    """Say how many requests fit the KV cache, pruned and unpruned.

    Args:
        modality: Of the one item in each request.
        whole: Visual tokens of an item.
        kept: Those that stay.
        cache: What holds them.
        max_num_seqs: How many requests vLLM runs at once.
    """
    now, before = (cache.num_requests(count + TEXT_TOKENS) for count in (kept, whole))
    fitting = f"{now} requests of such {'an' if modality == 'image' else 'a'} {modality} and {TEXT_TOKENS} text tokens"
    limit = f" (--max-num-seqs lets {max_num_seqs} run)" if max_num_seqs < now else ""
    return f"{fitting} fit the KV cache at once{limit}, {before or 'none'} unpruned"


def _largest_items(model_config: Any) -> Iterator[tuple[str, int, int]]:
    """Process the largest item of each modality that is allowed, as vLLM does to find out how much room it takes."""
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.utils.torch_utils import set_default_torch_num_threads

    processor = MULTIMODAL_REGISTRY.create_processor(model_config)
    for modality in MODALITIES:
        if processor.info.allowed_mm_limits.get(modality, 0) > 0:
            # As vLLM does in this process: threads of torch could wait for each other for ever.
            with set_default_torch_num_threads(1):
                inputs = processor.get_dummy_mm_inputs({modality: 1})
            whole = int(inputs["mm_kwargs"][modality][0][budget_field(modality)].data[-1])
            yield modality, whole, processor.info.pruning.budget.count(whole)
