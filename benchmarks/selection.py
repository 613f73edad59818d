"""Speed and memory of `select` beside the paper's procedure: `python -m benchmarks.selection`.

Writes results/selection.json. Both run in one process, in turns, on the same tokens and threads, and their picks are
compared. A case beside other load is measured again, once. About four minutes on two cores. `--device cuda` measures on
a GPU, see `benchmarks.selection_gpu`.
"""

import argparse
import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.paper_procedure import paper_procedure
from divprune.efficiency import seconds_of
from divprune.efficiency.foreign_load import quiet_rounds
from divprune.records import Record, provenance, quantiles
from divprune.selection import select

SIZES = ((576, 4096, 56), (1152, 4096, 115), (2880, 4096, 282), (6272, 3584, 627))
SMALL_SIZES = ((256, 1024, 25), (256, 4096, 25), (576, 1024, 56), (576, 4096, 56), (729, 1152, 71), (1152, 4096, 115))
SMALL_BATCHES = (1, 8)
ROUND_SECONDS = 1.0
"""A case is one round, repeated for so long: of less, the system's clock does not say how busy others were."""
BATCH = (32, 576, 4096, 56)
MEMORY_SIZE = (16384, 4096, 1638)
WARM_UP = 2
SEED = 0
CPU = torch.device("cpu")


def gaussian_tokens(total: int, width: int) -> Tensor:
    """Independent Gaussian numbers: no token has a near neighbour, the hardest case for shortcuts."""
    return torch.randn(total, width, generator=torch.Generator().manual_seed(SEED))


def picture_tokens(total: int, width: int, picture: str = "chelsea") -> Tensor:
    """Features of a photograph's patches under a seeded random network, in the shape of a projector's output."""
    from skimage import data

    draw = torch.Generator().manual_seed(SEED)
    side, patch, hidden = int((total - 1) ** 0.5) + 1, 14, 1024
    photograph = torch.from_numpy(getattr(data, picture)().copy()).permute(2, 0, 1)[None] / 255
    photograph = functional.interpolate(photograph, size=(side * patch, side * patch), mode="bicubic")
    patches = functional.unfold(photograph, patch, stride=patch)[0].T  # (side^2, 3 * patch^2)
    patches = (patches - patches.mean()) / patches.std()

    def layer(rows: Tensor, size: int) -> Tensor:
        return rows @ torch.randn(rows.shape[1], size, generator=draw) / rows.shape[1] ** 0.5

    features = functional.gelu(layer(patches, hidden)).T.reshape(1, hidden, side, side)
    # A vision encoder mixes each patch with its surroundings.
    features = (features + functional.avg_pool2d(features, 3, stride=1, padding=1)) / 2
    rows = functional.layer_norm(features.flatten(2)[0].T, (hidden,))
    return layer(functional.gelu(layer(rows, width)), width)[:total].contiguous()


FEATURES: dict[str, Callable[[int, int], Tensor]] = {"gaussian": gaussian_tokens, "picture": picture_tokens}


def in_turns(
    repeats: int, device: torch.device = CPU, round_seconds: float = 0.0, **functions: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each call, the functions taking turns, at least `repeats` times and for `round_seconds`."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(WARM_UP):
        for function in functions.values():
            function()
    started, repeat = time.perf_counter(), 0
    while repeat < repeats or time.perf_counter() - started < round_seconds:
        for name, function in functions.items():
            seconds[name].append(seconds_of(function, device))
        repeat += 1
    return seconds


def quiet_turns(repeats: int, **functions: Callable[[], object]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The same on the CPU, measured again if others were busy; and what a row says of the load."""
    rounds = quiet_rounds(lambda: in_turns(repeats, CPU, ROUND_SECONDS, **functions), 1)
    return rounds.results[0], rounds.as_config()


def compare(features: str, total: int, width: int, num_keep: int, repeats: int) -> dict[str, Any]:
    tokens = FEATURES[features](total, width)
    seconds, beside = quiet_turns(
        repeats,
        paper=lambda: paper_procedure(tokens, num_keep),
        select=lambda: select(tokens, num_keep=num_keep),
        matrix_product=lambda: tokens @ tokens.T,
    )
    ours, theirs = select(tokens, num_keep=num_keep).selection_order, paper_procedure(tokens, num_keep)
    same = ours == theirs
    row: dict[str, Any] = {"case": "compare", "features": features, "num_visual_tokens": total, "width": width}
    row |= {"num_keep": num_keep, "num_same_picks": int(same.sum()), "tie_gap": tie_gap(tokens, ours, theirs)}
    for name, samples in seconds.items():
        row |= quantiles(samples, f"{name}_")
    ratios = [paper / ours for paper, ours in zip(seconds["paper"], seconds["select"], strict=True)]
    return row | quantiles(ratios, "speedup_", "ratio") | beside


def small(features: str, size: tuple[int, int, int], batch_size: int, repeats: int) -> dict[str, Any]:
    """Small sets, alone and as a batch, beside the paper's procedure on one after the other."""
    total, width, num_keep = size
    tokens = FEATURES[features](total, width)
    sets = torch.stack([tokens.roll(shift, dims=1) for shift in range(batch_size)])
    seconds, beside = quiet_turns(
        repeats,
        paper=lambda: [paper_procedure(rows, num_keep) for rows in sets],
        select=lambda: select(sets, num_keep=num_keep),
    )
    row = {"case": "small", "features": features, "batch_size": batch_size, "num_visual_tokens": total, "width": width}
    row |= {"num_keep": num_keep, "repeats": len(seconds["paper"])}
    for name, samples in seconds.items():
        row |= quantiles(samples, f"{name}_")
    ratios = [paper / ours for paper, ours in zip(seconds["paper"], seconds["select"], strict=True)]
    return row | quantiles(ratios, "speedup_", "ratio") | beside


def tie_gap(tokens: Tensor, ours: Tensor, theirs: Tensor) -> float:
    """How much nearer, in float64, ours is than theirs where they first differ; 0 if they never do."""
    if bool((ours == theirs).all()):
        return 0.0
    first = int((ours != theirs).nonzero()[0])
    unit = functional.normalize(tokens[torch.cat([ours[: first + 1], theirs[first : first + 1]])].double(), dim=1)
    distance = 1 - unit[first:] @ unit[:first].T
    mine, other = distance.amin(dim=1).tolist()
    return float(other - mine)


def batch(features: str, repeats: int) -> dict[str, Any]:
    size, total, width, num_keep = BATCH
    tokens = torch.stack([FEATURES[features](total, width).roll(shift, dims=1) for shift in range(size)])
    seconds, beside = quiet_turns(
        repeats,
        loop=lambda: [select(rows, num_keep=num_keep) for rows in tokens],
        batch=lambda: select(tokens, num_keep=num_keep),
    )
    row = {"case": "batch", "features": features, "batch_size": size, "num_visual_tokens": total, "width": width}
    for name, samples in seconds.items():
        row |= quantiles(samples, f"{name}_")
    ratios = [loop / together for loop, together in zip(seconds["loop"], seconds["batch"], strict=True)]
    return row | {"num_keep": num_keep} | quantiles(ratios, "speedup_", "ratio") | beside


def memory(features: str) -> dict[str, Any]:
    """Peak memory of one selection beyond its input, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.selection", "--measure-memory", features]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    total, width, num_keep = MEMORY_SIZE
    row = {"case": "memory", "features": features, "num_visual_tokens": total, "width": width, "num_keep": num_keep}
    return row | {"input_bytes": total * width * 4, "peak_bytes_beyond_input": int(output[0])}


def measure_memory(features: str) -> None:
    total, width, num_keep = MEMORY_SIZE
    tokens = FEATURES[features](total, width)
    # What the libraries allocate once for any product is not the selection's.
    select(tokens[:2000], num_keep=200)
    # Memory that the C library keeps for reuse would hide an equal amount.
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident_bytes()
    peak, finished = before, threading.Event()
    worker = threading.Thread(target=lambda: (select(tokens, num_keep=num_keep), finished.set()))
    worker.start()
    while not finished.wait(0.001):
        peak = max(peak, _resident_bytes())
    print(peak - before)


def _resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def on_cpu(repeats: int) -> Record:
    origin, rows = provenance(), []
    for size in SIZES:
        for features in FEATURES:
            rows.append(compare(features, *size, repeats=repeats))
            print({name: value for name, value in rows[-1].items() if "p20" not in name and "p80" not in name})
    for size in SMALL_SIZES:
        for features in FEATURES:
            rows += [small(features, size, batch_size, repeats) for batch_size in SMALL_BATCHES]
            print({name: value for name, value in rows[-1].items() if "p20" not in name and "p80" not in name})
    for features in FEATURES:
        rows += [batch(features, repeats), memory(features)]
        print(rows[-2:])
    return Record("selection", config_of("cpu", repeats), rows, origin)


def on_gpu(repeats: int) -> Record:
    from benchmarks import selection_gpu

    origin, device = provenance(), torch.device("cuda")
    rows = [*selection_gpu.rows(device, SIZES, BATCH, repeats), selection_gpu.memory(device)]
    return Record("selection-cuda", config_of("cuda", repeats), rows, origin)


def config_of(device: str, repeats: int) -> dict[str, Any]:
    return {"warm_up": WARM_UP, "repeats": repeats, "seed": SEED, "dtype": "float32", "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--measure-memory", choices=FEATURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        measure_memory(arguments.measure_memory)
        return
    found = on_gpu if arguments.device == "cuda" else on_cpu
    print(found(arguments.repeats).save(arguments.output))


if __name__ == "__main__":
    main()
