"""Read vLLM's flags: what each is given, and which of them answers depend on."""

import re
from collections.abc import Sequence
from pathlib import Path

from divprune.errors import ServerError, first_line

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


def flag_values(flags: Sequence[str]) -> dict[str, str]:
    """Return what each of vLLM's flags is given, by its name without dashes in front; the last one counts.

    A flag is written `--name value`, `--name=value`, or as a key of the file that `--config` names, which counts less.

    Raises:
        ServerError: that file cannot be read.
    """
    found: dict[str, str] = {}
    for place, flag in enumerate(flags):
        if flag.startswith("--"):
            name, equals, value = flag[2:].partition("=")
            found[name.replace("_", "-")] = value if equals else "".join(flags[place + 1 : place + 2])
    return _config_values(Path(found["config"])) | found if "config" in found else found


def _config_values(path: Path) -> dict[str, str]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ServerError(f"vLLM's config file cannot be read: {path} ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ServerError(f"vLLM's config file must map vLLM's flags to their values: {path}")
    return {str(name).replace("_", "-"): str(value) for name, value in content.items()}
