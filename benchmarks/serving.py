"""What pruned servers answer under load, next to unpruned ones: `python -m benchmarks.serving`.

Writes results/serving.json. All serve the same checkpoint (Qwen2.5-VL-7B's width, fewer layers, random weights,
bfloat16) with the same flags and KV pool, one after the other in turns. Requests have an image (of four sizes), or a
video of eight frames, or neither; all have 64 words and get 32 tokens. On a GPU vLLM's own pruning of videos stands
beside ours, at the same keep ratio. Runs in the environment of `make test-serving`; about half an hour on two cores.
"""

import argparse
import base64
import io
import os
import random
import re
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from benchmarks.load_client import run_load
from benchmarks.serving_model import Checkpoint, write_checkpoint
from divprune.efficiency.random_model import image_like
from divprune.records import Record, provenance, quantiles
from tests.serving.servers import CLI, VLLM_SERVER, Server, free_port, running

TEXT_TOKENS, OUTPUT_TOKENS = 64, 32
IMAGE_SIZES = ((224, 224), (448, 336), (560, 420), (672, 504))
"""Width and height: 64, 192, 300 and 432 visual tokens."""
VIDEO_FRAMES, VIDEO_SIZE = 8, (224, 224)
TRAFFICS = ("image", "video", "text")
BLOCK_SIZE, POOL_BLOCKS = 32, 256
FLAGS = (
    "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching",
    "--mm-processor-cache-gb", "0", "--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", str(POOL_BLOCKS),
    "--limit-mm-per-prompt", '{"image": 1, "video": 1}', "--max-num-seqs", "64", "--disable-uvicorn-access-log",
    "--served-model-name", "bench",
)  # fmt: skip
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Variant:
    """A server: what prunes, and how much it keeps of each image or video."""

    method: str
    keep_ratio: float | None
    is_vllms_own: bool = False

    @property
    def traffics(self) -> Sequence[str]:
        """What it is asked; vLLM's own methods leave images alone."""
        return ("video",) if self.is_vllms_own else TRAFFICS

    def command(self, model: Path, flags: Sequence[str]) -> list[str]:
        """Return what starts it."""
        if self.method == "unpruned" or self.is_vllms_own:
            own = [sys.executable, "-m", VLLM_SERVER, "--host", "127.0.0.1", "--model", str(model), *flags]
            if self.keep_ratio is None:
                return own
            rate = str(round(1 - self.keep_ratio, 6))
            return [*own, "--video-pruning-rate", rate, "--video-pruning-method", self.method.split()[-1]]
        budget = ["--method", self.method, "--keep-ratio", str(self.keep_ratio)]
        return [sys.executable, "-c", CLI, "serve", str(model), *budget, "--", *flags]


VLLMS_OWN = (Variant("vllm evs", 0.098, is_vllms_own=True), Variant("vllm vidcom2", 0.098, is_vllms_own=True))
VARIANTS = (
    Variant("unpruned", None),
    Variant("random", 0.098),
    Variant("divprune", 0.25),
    Variant("divprune", 0.098),
    Variant("divprune", 0.05),
    Variant("evs", 0.098),
    # vLLM's runner for CPUs does not prune by itself.
    *(VLLMS_OWN if torch.cuda.is_available() else ()),
)


class CacheWatch(threading.Thread):
    """Reads how much of the KV pool is in use, until `stop`."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server, self._done, self.shares = server, threading.Event(), [0.0]

    def run(self) -> None:
        """Look five times a second."""
        while not self._done.wait(0.2):
            self.shares.append(self._server.metric("vllm:kv_cache_usage_perc"))

    def stop(self) -> float:
        """Return the largest share seen."""
        self._done.set()
        self.join()
        return max(self.shares)


def requests(traffic: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return chat requests whose images are all different, so that no cache answers."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        words = " ".join(f"w{draw.randrange(30_000)}" for _ in range(TEXT_TOKENS))
        parts: list[dict[str, Any]] = [{"type": "text", "text": words}]
        if traffic == "image":
            size = IMAGE_SIZES[number % len(IMAGE_SIZES)]
            url = f"data:image/jpeg;base64,{_jpeg(size, draw.randrange(2**31))}"
            parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
        elif traffic == "video":
            start = draw.randrange(2**31)
            frames = ",".join(_jpeg(VIDEO_SIZE, start + frame) for frame in range(VIDEO_FRAMES))
            parts.insert(0, {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}})
        body = {"model": "bench", "messages": [{"role": "user", "content": parts}], "max_tokens": OUTPUT_TOKENS}
        found.append({**body, "temperature": 0, "ignore_eos": True})
    return found


def _jpeg(size: tuple[int, int], seed: int) -> str:
    """An image that is smooth as photographs are, in base64."""
    noise = image_like(3, size[1], size[0], seed=seed)
    scaled = (128 + 48 * noise / noise.std()).clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(scaled.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def serving(variant: Variant, model: Path, log: Path) -> Iterator[Server]:
    """A server, from when it is ready until the block ends."""
    port = free_port()
    command = variant.command(model, ["--port", str(port), *FLAGS])
    with running(command, port, log, os.environ | ENVIRONMENT) as server:
        yield server


@dataclass(frozen=True)
class Load:
    """How much is asked: at once, and for each of those one after the other."""

    concurrency: Sequence[int]
    waves: int


def measure(model: Path, load: Load, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Ask all servers, in turns, so that a change of the machine's speed meets all of them."""
    samples: dict[tuple[Variant, str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for variant in VARIANTS:
            with serving(variant, model, folder / "log.txt") as server:
                run_load(server.address, requests("image" if "image" in variant.traffics else "video", 2, -1), 2)
                for traffic in variant.traffics:
                    for concurrency in load.concurrency:
                        sample = asked(server, traffic, concurrency, load.waves, seed=number)
                        samples.setdefault((variant, traffic, concurrency), []).append(sample)
                        print(number, variant.method, variant.keep_ratio, traffic, concurrency, sample, flush=True)
    return [row(*key, found) for key, found in samples.items()]


def asked(server: Server, traffic: str, concurrency: int, waves: int, seed: int) -> dict[str, Any]:
    """Put one load on a server; what came of it."""
    bodies = requests(traffic, concurrency * waves, seed * 1000 + concurrency)
    before, watch = _selection_seconds(server), CacheWatch(server)
    watch.start()
    timings, seconds = run_load(server.address, bodies, concurrency)
    selecting = _selection_seconds(server) - before
    return {
        "requests_per_second": len(timings) / seconds,
        "ttft_p50_seconds": median(timing.ttft_seconds for timing in timings),
        "ttft_p99_seconds": _quantile([timing.ttft_seconds for timing in timings], 0.99),
        "end_to_end_p50_seconds": median(timing.end_to_end_seconds for timing in timings),
        "prompt_tokens": sum(timing.prompt_tokens for timing in timings) / len(timings),
        "peak_cache_share": watch.stop(),
        "selection_seconds_per_request": selecting / len(timings),
    }


def _quantile(values: Sequence[float], share: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def _selection_seconds(server: Server) -> float:
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=30) as response:
        text = response.read().decode()
    return sum(map(float, re.findall(r"^divprune:selection_seconds_total\{.*\} (\S+)$", text, re.MULTILINE)))


def row(variant: Variant, traffic: str, concurrency: int, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the rounds."""
    return {
        "method": variant.method,
        "keep_ratio": variant.keep_ratio,
        "traffic": traffic,
        "concurrency": concurrency,
        **quantiles([sample["requests_per_second"] for sample in samples], "requests_", "per_second"),
        **quantiles([sample["ttft_p50_seconds"] for sample in samples], "ttft_p50_"),
        **quantiles([sample["ttft_p99_seconds"] for sample in samples], "ttft_p99_"),
        **quantiles([sample["end_to_end_p50_seconds"] for sample in samples], "end_to_end_p50_"),
        "prompt_tokens": median(sample["prompt_tokens"] for sample in samples),
        "peak_cache_share": max(sample["peak_cache_share"] for sample in samples),
        "selection_seconds_per_request": median(sample["selection_seconds_per_request"] for sample in samples),
    }


def config(load: Load, rounds: int, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was measured."""
    return {
        **checkpoint.as_config(),
        "dtype": "bfloat16",
        "image_sizes": IMAGE_SIZES,
        "video_frames": VIDEO_FRAMES,
        "video_size": VIDEO_SIZE,
        "text_tokens": TEXT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "pool_tokens": BLOCK_SIZE * POOL_BLOCKS,
        "requests_per_place": load.waves,
        "rounds": rounds,
        "prefix_cache": False,
        "enforce_eager": True,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="decoder layers, of 28")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--waves", type=int, default=1, help="requests for each place in the server, one after another")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    origin, load = provenance(), Load(options.concurrency, options.waves)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_checkpoint(folder / "model", options.layers)
        rows = measure(folder / "model", load, options.rounds, folder)
    record = Record("serving", config(load, options.rounds, checkpoint), rows, origin)
    print(record.save(options.output))


if __name__ == "__main__":
    main()
