"""What pruned servers answer under load, next to an unpruned one: `python -m benchmarks.serving`.

Writes results/serving.json. All serve the same checkpoint (Qwen2.5-VL-7B's width, fewer layers, random weights,
bfloat16) with the same flags and KV pool, one after the other in turns. Requests have an image (of four sizes), or a
video of eight frames, or neither; all have 64 words and get 32 tokens. On a GPU vLLM's own pruning of videos stands
beside ours, at the same keep ratio. Runs in the environment of `make test-serving`; a round takes some 20 minutes on
two cores.

The record is written when everything has been measured; killed before, the benchmark leaves none, and no server.
`--width toy` tries all of it in a few minutes.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.encoder_times import EXTENSION, call_worker
from benchmarks.load_client import run_load
from benchmarks.serving_model import WIDTHS, Checkpoint, write_checkpoint
from benchmarks.serving_requests import (
    IMAGE_SIZES,
    OUTPUT_TOKENS,
    TEXT_TOKENS,
    TRAFFICS,
    VIDEO_FRAMES,
    VIDEO_SIZE,
    requests,
)
from divprune.efficiency.foreign_load import ForeignLoad
from divprune.records import Record, check_record_place, provenance, quantiles
from tests.serving.servers import CLI, VLLM_SERVER, Server, free_port, running

NAME = "serving"
BLOCK_SIZE, POOL_BLOCKS = 32, 256
FLAGS = (
    "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching",
    "--mm-processor-cache-gb", "0", "--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", str(POOL_BLOCKS),
    "--max-num-seqs", "64", "--disable-uvicorn-access-log", "--worker-extension-cls", EXTENSION,
)  # fmt: skip
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    # Else vLLM would leave one of two cores to the server's front end.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Variant:
    """A server.

    Attributes:
        method: What prunes; "unpruned" for nothing.
        keep_ratio: Fraction of each image's or video's tokens that it keeps; None for all.
        traffics: What it is asked.
        is_vllms_own: Whether the method is vLLM's implementation.
    """

    method: str
    keep_ratio: float | None
    traffics: Sequence[str] = TRAFFICS
    is_vllms_own: bool = False

    @property
    def title(self) -> str:
        """What the record calls it."""
        return f"vllm {self.method}" if self.is_vllms_own else self.method

    def command(self, model: Path, port: int) -> list[str]:
        """Return what starts it."""
        limits = ", ".join(f'"{kind}": {int(kind in self.traffics)}' for kind in ("image", "video"))
        flags = ["--port", str(port), "--limit-mm-per-prompt", f"{{{limits}}}", *FLAGS]
        if self.keep_ratio is None or self.is_vllms_own:
            plain = [sys.executable, "-m", VLLM_SERVER, "--host", "127.0.0.1", "--model", str(model), *flags]
            return plain if self.keep_ratio is None else [*plain, *self._vllms_flags(self.keep_ratio)]
        budget = ["--method", self.method, "--keep-ratio", str(self.keep_ratio)]
        return [sys.executable, "-c", CLI, "serve", str(model), *budget, "--", *flags]

    def _vllms_flags(self, keep_ratio: float) -> list[str]:
        # vLLM's rate is the fraction that is dropped.
        return ["--video-pruning-rate", str(round(1 - keep_ratio, 6)), "--video-pruning-method", self.method]


PAPER_RATIO = 0.098
VIDEO_METHODS = ("evs", "vidcom2")
"""That vLLM has too; its runner for CPUs does not prune by itself, so its own are measured on a GPU alone."""
VARIANTS = (
    Variant("unpruned", None),
    Variant("random", PAPER_RATIO),
    *(Variant("divprune", keep_ratio) for keep_ratio in (0.25, PAPER_RATIO, 0.05)),
    *(Variant(method, PAPER_RATIO, ("video",)) for method in VIDEO_METHODS),
)
VLLMS_OWN = tuple(Variant(method, PAPER_RATIO, ("video",), is_vllms_own=True) for method in VIDEO_METHODS)


@dataclass(frozen=True)
class Load:
    """How much is asked.

    Attributes:
        concurrency: How many requests run at once, one load after the other.
        waves: How many requests a load has for each of those.
    """

    concurrency: Sequence[int]
    waves: int


def measure(variants: Sequence[Variant], model: Path, load: Load, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Ask all servers, in turns, so that a change of the machine's speed meets all of them."""
    samples: dict[tuple[Variant, str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for variant in variants if number % 2 == 0 else variants[::-1]:
            with serving(variant, model, folder / "log.txt") as server:
                for traffic in variant.traffics:
                    run_load(server.address, requests(traffic, 2, seed=-1), 2)
                call_worker(server.address, "time_encoder")
                for traffic in variant.traffics:
                    for concurrency in load.concurrency:
                        sample = asked(server, traffic, concurrency, load.waves, seed=number)
                        samples.setdefault((variant, traffic, concurrency), []).append(sample)
                        print(number, variant.title, variant.keep_ratio, traffic, concurrency, sample, flush=True)
    order = {variant: place for place, variant in enumerate(variants)}
    return [row(*key, samples[key]) for key in sorted(samples, key=lambda key: (order[key[0]], key[1:]))]


@contextmanager
def serving(variant: Variant, model: Path, log: Path) -> Iterator[Server]:
    """A server, from when it is ready until the block ends."""
    port = free_port()
    # Servers run as `divprune serve` starts them: their threads wait as the libraries have it.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | ENVIRONMENT
    with running(variant.command(model, port), port, log, environment) as server:
        yield server


def asked(server: Server, traffic: str, concurrency: int, waves: int, seed: int) -> dict[str, Any]:
    """Put one load on a server; what came of it."""
    bodies = requests(traffic, concurrency * waves, seed * 1000 + concurrency)
    selection, encoder = _selection_seconds(server), _encoder_seconds(server)
    done, others = threading.Event(), ForeignLoad()
    with ThreadPoolExecutor(1) as pool:
        peak = pool.submit(_peak_kv_usage, server, done)
        try:
            timings, seconds = run_load(server.address, bodies, concurrency)
        finally:
            done.set()
    foreign_cores = others.cores()
    selection = _selection_seconds(server) - selection
    # What prunes in ours does so behind the encoder, and is timed by itself.
    encoder = _encoder_seconds(server) - encoder - selection
    first = [timing.ttft_seconds for timing in timings]
    return {
        "requests_per_second": len(timings) / seconds,
        "ttft_p50_seconds": median(first),
        "ttft_p99_seconds": float(torch.tensor(first, dtype=torch.float64).quantile(0.99)),
        "end_to_end_p50_seconds": median(timing.end_to_end_seconds for timing in timings),
        "prompt_tokens": sum(timing.prompt_tokens for timing in timings) / len(timings),
        "peak_kv_usage": peak.result(),
        "encoder_fraction": encoder / seconds,
        "selection_seconds_per_request": selection / len(timings),
        "foreign_cores": foreign_cores,
    }


def _peak_kv_usage(server: Server, done: threading.Event) -> float:
    """The largest fraction of the KV pool that was in use until `done`."""
    peak = 0.0
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        peak = max(peak, server.metric("vllm:kv_cache_usage_perc"))
    return peak


def _encoder_seconds(server: Server) -> float:
    return float(call_worker(server.address, "encoder_times")["seconds"])


def _selection_seconds(server: Server) -> float:
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=30) as response:
        text = response.read().decode()
    return sum(map(float, re.findall(r"^divprune:selection_seconds_total\{.*\} (\S+)$", text, re.MULTILINE)))


def row(variant: Variant, traffic: str, concurrency: int, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the rounds."""

    def of_all(name: str) -> list[float]:
        return [sample[name] for sample in samples]

    return {
        "method": variant.title,
        "keep_ratio": variant.keep_ratio,
        "traffic": traffic,
        "concurrency": concurrency,
        **quantiles(of_all("requests_per_second"), "requests_", "per_second"),
        **quantiles(of_all("ttft_p50_seconds"), "ttft_p50_"),
        **quantiles(of_all("ttft_p99_seconds"), "ttft_p99_"),
        **quantiles(of_all("end_to_end_p50_seconds"), "end_to_end_p50_"),
        "prompt_tokens": median(of_all("prompt_tokens")),
        "peak_kv_usage": max(of_all("peak_kv_usage")),
        "encoder_fraction": median(of_all("encoder_fraction")),
        "selection_seconds_per_request": median(of_all("selection_seconds_per_request")),
        "max_foreign_cores": max(of_all("foreign_cores")),
    }


def config(load: Load, rounds: int, checkpoint: Checkpoint) -> dict[str, Any]:
    """What was measured."""
    return {
        **checkpoint.as_config(),
        "dtype": "bfloat16",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "vllm": version(packages_distributions()["vllm"][0]),
        "vllms_own_methods": "measured"
        if torch.cuda.is_available()
        else "not measured, its runner for CPUs does not prune",
        "image_sizes": IMAGE_SIZES,
        "video_frames": VIDEO_FRAMES,
        "video_size": VIDEO_SIZE,
        "text_tokens": TEXT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "pool_tokens": BLOCK_SIZE * POOL_BLOCKS,
        "waves": load.waves,
        "rounds": rounds,
        "prefix_cache": False,
        "enforce_eager": True,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", choices=WIDTHS, default="7b")
    parser.add_argument("--layers", type=int, default=2, help="decoder layers, of 28")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--waves", type=int, default=1, help="requests of a load for each that runs at once")
    parser.add_argument("--rounds", type=int, default=1, help="times that all servers are asked, in turns")
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    # Killed, it does not leave a server behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    check_record_place(options.output, NAME)
    origin, load = provenance(), Load(options.concurrency, options.waves)
    variants = VARIANTS + VLLMS_OWN if torch.cuda.is_available() else VARIANTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_checkpoint(folder / "model", WIDTHS[options.width], options.layers)
        rows = measure(variants, folder / "model", load, options.rounds, folder)
    record = Record(NAME, config(load, options.rounds, checkpoint), rows, origin)
    print(record.save(options.output))


if __name__ == "__main__":
    main()
