"""Tell vLLM's flags that answers depend on from those that only make an engine fast or fit a machine."""

import re
from collections.abc import Sequence

PERFORMANCE_FLAGS = frozenset((
    "async-scheduling", "attention-backend", "block-size", "compilation-config", "cc", "cpu-offload-gb",
    "cudagraph-capture-sizes", "data-parallel-backend", "data-parallel-size", "dp", "device-ids",
    "device-memory-utilization", "disable-cascade-attn", "disable-chunked-mm-input", "disable-custom-all-reduce",
    "disable-log-stats", "distributed-executor-backend", "distributed-timeout-seconds", "download-dir",
    "enable-chunked-prefill", "enable-expert-parallel", "ep", "enable-log-requests", "enable-prefix-caching",
    "enforce-eager", "gpu-memory-utilization", "kv-cache-memory-bytes", "kv-offloading-backend", "kv-offloading-size",
    "limit-mm-per-prompt", "log-level", "long-prefill-token-threshold", "max-cudagraph-capture-size",
    "max-num-batched-tokens", "max-num-scheduled-tokens", "max-num-seqs", "max-parallel-loading-workers",
    "mm-encoder-attn-backend", "mm-encoder-tp-mode", "mm-processor-cache-gb", "mm-processor-cache-type",
    "mm-shm-cache-max-object-size-mb", "num-gpu-blocks-override", "numa-bind", "numa-bind-cpus", "numa-bind-nodes",
    "optimization-level", "performance-mode", "prefix-caching-hash-algo", "renderer-num-workers",
    "safetensors-load-strategy", "safetensors-prefetch-block-size", "safetensors-prefetch-num-threads",
    "scheduling-policy", "shutdown-timeout", "skip-mm-profiling", "stream-interval", "tensor-parallel-size", "tp",
    "use-tqdm-on-load", "watermark",
))  # fmt: skip
"""They change how fast an engine answers, where it runs, or what it refuses: not what it answers, but for the last
digits of sums. Whatever is not listed counts: `--max-model-len` too, which cuts answers and chooses the scaling of some
models' positions."""

_FLAG = re.compile(r"--?[A-Za-z]")
_LEVEL = re.compile(r"-O\S*")


def answer_flags(flags: Sequence[str]) -> tuple[str, ...]:
    """Return the flags that answers depend on, in one spelling: `--name value`, sorted by their names.

    Args:
        flags: as on vLLM's command line.
    """
    groups: list[list[str]] = []
    for word in flags:
        if _FLAG.match(word):
            name, equals, value = word.partition("=")
            groups.append([name.replace("_", "-"), *([value] if equals else [])])
        elif groups:
            groups[-1].append(word)
        else:
            # A value of no flag; vLLM will say so.
            groups.append([word])
    kept = [group for group in groups if not _is_performance(group[0])]
    # Of a flag that is given twice the last one holds, so their order stays.
    return tuple(word for group in sorted(kept, key=lambda group: group[0]) for word in group)


def _is_performance(flag: str) -> bool:
    """Tell whether a flag is one of performance: `--no-name` and `--name.key` are parts of `--name`."""
    name = flag.lstrip("-").partition(".")[0].removeprefix("no-")
    return _LEVEL.fullmatch(flag) is not None or name in PERFORMANCE_FLAGS
