"""Requests per second of a pruned server next to an unpruned one: `python -m benchmarks.serving`.

Writes results/serving.json. Both serve the same checkpoint (LLaVA-1.5-7B's width, fewer layers, random weights,
bfloat16) with the same flags and key-value pool, one after the other in turns; vLLM's own bench client asks. A request
of the image traffic has two pictures, 64 words and an answer of 32 tokens, one of the text traffic has no pictures.
Runs in the environment of `make test-serving`; about 20 minutes on two cores.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving_model import Checkpoint, write_checkpoint
from divprune.records import Record, provenance, quantiles
from divprune.serving.server import pruned_server

KEEP_RATIO = 0.098
POOL_GIB = 1
MAX_LENGTH = 2048
TEXT_TOKENS, OUTPUT_TOKENS, PICTURES, SIDE = 64, 32, 2, 336
TRAFFICS = {"image": PICTURES, "text": 0}
VARIANTS = ("unpruned", "random", "divprune")
CLIENT = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True)
class Load:
    """How much is asked: requests of a run, and how many at once."""

    num_requests: dict[str, int]
    concurrency: int


class CacheWatch(threading.Thread):
    """Reads how much of the key-value pool is in use, until `stop`."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._url, self._done, self.shares = f"{address}/metrics", threading.Event(), [0.0]

    def run(self) -> None:
        while not self._done.wait(0.2):
            text = urllib.request.urlopen(self._url, timeout=10).read().decode()
            found = re.search(r"^vllm:kv_cache_usage_perc\{[^}]*\} (\S+)$", text, re.MULTILINE)
            if found:
                self.shares.append(float(found[1]))

    def stop(self) -> float:
        """The largest share seen."""
        self._done.set()
        self.join()
        return max(self.shares)


def command(variant: str, model: Path, port: int) -> list[str]:
    flags = (
        "--host=127.0.0.1", f"--port={port}", "--dtype=bfloat16", f"--max-model-len={MAX_LENGTH}", "--enforce-eager",
        f'--limit-mm-per-prompt={{"image": {PICTURES}}}', "--no-enable-prefix-caching", "--mm-processor-cache-gb=0",
        "--served-model-name=bench",
    )  # fmt: skip
    pruned = pruned_server(
        str(model),
        method="divprune" if variant == "unpruned" else variant,
        keep_ratio=KEEP_RATIO,
        num_keep=None,
        flags=flags,
    )
    if variant != "unpruned":
        return list(pruned.command)
    place = pruned.command.index("--hf-overrides")
    # Nor the middleware behind them, which is for pruned models.
    return [*pruned.command[:place], *pruned.command[place + 4 :]]


@contextmanager
def serving(variant: str, model: Path, log: Path) -> Iterator[str]:
    """A server, from when it is ready until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": str(POOL_GIB)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(variant, model, port), env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(process, address, log)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=120)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server stopped: {log.read_text(errors='replace')[-2000:]}")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise RuntimeError("the server was not ready within ten minutes")


def asked(address: str, model: Path, traffic: str, load: Load, folder: Path) -> dict[str, Any]:
    """What vLLM's bench client measures."""
    pictures = TRAFFICS[traffic]
    flags = [
        "--backend=openai-chat", f"--base-url={address}", "--endpoint=/v1/chat/completions", "--model=bench",
        f"--tokenizer={model}", "--dataset-name=random-mm", f"--random-input-len={TEXT_TOKENS}",
        f"--random-output-len={OUTPUT_TOKENS}", f"--random-mm-base-items-per-request={pictures}",
        f'--random-mm-limit-mm-per-prompt={{"image": {PICTURES}}}',
        f"--random-mm-bucket-config={{({SIDE}, {SIDE}, 1): 1.0}}", f"--num-prompts={load.num_requests[traffic]}",
        f"--max-concurrency={load.concurrency}", "--ignore-eos", "--temperature=0", "--save-result",
        f"--result-dir={folder}", "--result-filename=result.json", "--percentile-metrics=ttft,tpot,e2el",
        "--metric-percentiles=50,99", "--disable-tqdm", "--num-warmups=2",
    ]  # fmt: skip
    watch = CacheWatch(address)
    watch.start()
    subprocess.run([sys.executable, "-c", CLIENT, *flags], check=True, stdout=subprocess.DEVNULL)
    share = watch.stop()
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if result["completed"] != load.num_requests[traffic]:
        raise RuntimeError(f"{result['completed']} of {load.num_requests[traffic]} requests were answered")
    return {
        "requests_per_second": result["request_throughput"],
        "ttft_p50_seconds": result["p50_ttft_ms"] / 1000,
        "ttft_p99_seconds": result["p99_ttft_ms"] / 1000,
        "e2e_p50_seconds": result["p50_e2el_ms"] / 1000,
        "prompt_tokens": result["total_input_tokens"] / load.num_requests[traffic],
        "peak_cache_share": share,
    }


def pool_blocks(address: str) -> int:
    text = urllib.request.urlopen(f"{address}/metrics", timeout=10).read().decode()
    found = re.search(r'num_gpu_blocks="(\d+)"', text)
    return int(found[1]) if found else 0


def measure(model: Path, load: Load, rounds: int, folder: Path) -> list[dict[str, Any]]:
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    blocks: dict[str, int] = {}
    for number in range(rounds):
        # In turns, so that a change of the machine's speed meets all of them.
        for variant in VARIANTS:
            with serving(variant, model, folder / f"{variant}.log") as address:
                blocks[variant] = pool_blocks(address)
                for traffic in TRAFFICS:
                    samples.setdefault((variant, traffic), []).append(asked(address, model, traffic, load, folder))
                    print(number, variant, traffic, samples[variant, traffic][-1], flush=True)
    return [row(variant, traffic, found, blocks[variant]) for (variant, traffic), found in samples.items()]


def row(variant: str, traffic: str, samples: Sequence[dict[str, Any]], blocks: int) -> dict[str, Any]:
    rates = [sample["requests_per_second"] for sample in samples]
    first = [sample["ttft_p50_seconds"] for sample in samples]
    return {
        "variant": variant,
        "traffic": traffic,
        **quantiles(rates, "requests_", "per_second"),
        **quantiles(first, "ttft_p50_"),
        **quantiles([sample["ttft_p99_seconds"] for sample in samples], "ttft_p99_"),
        **quantiles([sample["e2e_p50_seconds"] for sample in samples], "e2e_p50_"),
        "pool_blocks": blocks,
        "peak_blocks": round(max(sample["peak_cache_share"] for sample in samples) * blocks),
    }


def config(load: Load, rounds: int, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "architecture": "llava-1.5-7b",
        "num_layers": checkpoint.num_layers,
        "num_tower_layers": checkpoint.num_tower_layers,
        "encoder_seconds": checkpoint.encoder_seconds,
        "prefill_seconds": checkpoint.prefill_seconds,
        "dtype": "bfloat16",
        "keep_ratio": KEEP_RATIO,
        "pictures": PICTURES,
        "visual_tokens_per_picture": 576,
        "text_tokens": TEXT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "pool_gib": POOL_GIB,
        "num_requests": load.num_requests,
        "concurrency": load.concurrency,
        "rounds": rounds,
        "prefix_cache": False,
        "enforce_eager": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="decoder layers, of 32")
    parser.add_argument("--image-requests", type=int, default=24)
    parser.add_argument("--text-requests", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    origin = provenance()
    load = Load({"image": options.image_requests, "text": options.text_requests}, options.concurrency)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_checkpoint(folder / "model", options.layers)
        rows = measure(folder / "model", load, options.rounds, folder)
    record = Record("serving", config(load, options.rounds, checkpoint), rows, origin)
    print(record.save(options.output))


if __name__ == "__main__":
    main()
