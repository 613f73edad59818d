"""What a pruned server tells Prometheus, beside vLLM's own metrics at `/metrics`.

Tokens are counted by the front end, which answers `/metrics`. Selection happens in the workers, which are other
processes: they write sums into a folder, in the files by which Prometheus' client shares metrics among processes.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from divprune.vllm_plugin.token_counts import ItemCount
from divprune.vllm_plugin.watcher import METRICS_FOLDER

SHARED_BY_VLLM = "PROMETHEUS_MULTIPROC_DIR"
"""Where vLLM shares its own metrics among several front ends, if it has any; it reads all files there."""

SELECTION_SECONDS = "divprune:selection_seconds"
SELECTIONS = "divprune:selections"
_HELP = {
    SELECTION_SECONDS: "Seconds that the first worker spent on selecting tokens.",
    SELECTIONS: "Images and videos of which tokens were selected; what is cached is not selected from again.",
}
RATIO_BUCKETS = (0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)


class TokenMetrics:
    """Visual tokens of the requests that were answered: before pruning, after it, and their ratio."""

    def __init__(self, registry: Any = REGISTRY) -> None:
        self._seen = Counter(
            "divprune:visual_tokens", "Visual tokens of requests, before pruning.", ["modality"], registry=registry
        )
        self._kept = Counter(
            "divprune:kept_visual_tokens", "Visual tokens that the LLM read.", ["modality"], registry=registry
        )
        self._ratio = Histogram(
            "divprune:request_keep_ratio",
            "Kept visual tokens of a request over those it had.",
            buckets=RATIO_BUCKETS,
            registry=registry,
        )

    def add(self, items: Sequence[ItemCount]) -> None:
        """Count the items of a request; one without images and videos has no ratio."""
        for item in items:
            self._seen.labels(item.modality).inc(item.num_visual_tokens)
            self._kept.labels(item.modality).inc(item.num_kept)
        total = sum(item.num_visual_tokens for item in items)
        if total:
            self._ratio.observe(sum(item.num_kept for item in items) / total)


class SelectionTimes:
    """A worker's half: what it adds, `SharedTimes` reads."""

    def __init__(self) -> None:
        folder = os.environ.get(SHARED_BY_VLLM) or os.environ.get(METRICS_FOLDER)
        # "counter" is how Prometheus' client knows that sums of processes are to be added.
        self._file = MmapedDict(str(Path(folder) / f"counter_divprune-{os.getpid()}.db")) if folder else None

    def add(self, modality: str, num_items: int, seconds: float) -> None:
        """Count a batch of items, and the seconds that selecting their tokens took."""
        if self._file is None:
            return
        for name, amount in ((SELECTION_SECONDS, seconds), (SELECTIONS, num_items)):
            key = mmap_key(name, f"{name}_total", ["modality"], [modality], _HELP[name])
            value, _ = self._file.read_value(key)
            self._file.write_value(key, value + amount, 0.0)


class SharedTimes:
    """Gives a registry what the workers wrote into the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Any]:
        """Return the sums over all workers."""
        found: Iterable[Any] = MultiProcessCollector.merge([str(path) for path in self._folder.glob("counter_*.db")])
        return found


def share_selection_times(registry: Any = REGISTRY) -> None:
    """Have `/metrics` show what workers write, where vLLM does not do so itself."""
    folder = os.environ.get(METRICS_FOLDER)
    if folder and SHARED_BY_VLLM not in os.environ:
        registry.register(SharedTimes(Path(folder)))
