"""Speed of `select` on a GPU: `python -m benchmarks.selection --device cuda`.

Writes results/selection-cuda.json. In turns, on the same tokens: the paper's procedure, `select`, plain torch without
the kernel, plain torch compiled, product and kernel replayed from a CUDA graph, and one float32 product alone. `rows`
also runs on the CPU, without what only a GPU has, to try the code.
"""

from collections.abc import Callable
from importlib.util import find_spec
from math import inf
from typing import Any

import torch
from torch import Tensor

from benchmarks.paper_procedure import paper_procedure
from benchmarks.selection import FEATURES, in_turns, tie_gap
from divprune.records import quantiles
from divprune.selection import select
from divprune.selection.dense import dense_picks
from divprune.selection.distances import Distances
from divprune.selection.fused import fused_picks, runs_on

MOST_TOKENS = 16384, 4096, 1638
Size = tuple[int, int, int]


def rows(device: torch.device, sizes: tuple[Size, ...], batch: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Compare at each size (tokens, width, picks), and as a batch, whose number of sets stands before its size."""
    # Photographs come with scikit-image, which a machine for measuring may lack.
    kinds = [name for name in FEATURES if name == "gaussian" or find_spec("skimage")]
    found = [compare(device, features, size, repeats) for size in sizes for features in kinds]
    return found + [compare(device, features, batch[1:], repeats, batch[0]) for features in kinds]


def compare(device: torch.device, features: str, size: Size, repeats: int, batch_size: int = 1) -> dict[str, Any]:
    total, width, num_keep = size
    tokens = FEATURES[features](total, width).to(device)
    sets = torch.stack([tokens.roll(shift, dims=1) for shift in range(batch_size)])
    given = sets if batch_size > 1 else tokens
    functions: dict[str, Callable[[], object]] = {
        "paper": lambda: [paper_procedure(each, num_keep) for each in sets],
        "select": lambda: select(given, num_keep=num_keep),
        "plain": lambda: dense_picks(Distances(sets, "cosine"), num_keep),
        "matrix_product": lambda: sets @ sets.mT,
        "compiled": compiled_plain(sets, num_keep),
    }
    if runs_on(device):
        functions["graph"] = captured(sets, num_keep).replay
    seconds = in_turns(repeats, device, **functions)
    ours, theirs = select(tokens, num_keep=num_keep).selection_order, paper_procedure(tokens, num_keep)
    row: dict[str, Any] = {"case": "compare" if batch_size == 1 else "batch", "features": features}
    row |= {"batch_size": batch_size, "num_visual_tokens": total, "width": width, "num_keep": num_keep}
    row |= {"num_same_picks": int((ours == theirs).sum()), "tie_gap": tie_gap(tokens, ours, theirs)}
    row |= {"has_kernel": runs_on(device)}
    for name, samples in seconds.items():
        row |= quantiles(samples, f"{name}_")
        if name != "select":
            ratios = [other / own for other, own in zip(samples, seconds["select"], strict=True)]
            row |= quantiles(ratios, "speedup_" if name == "paper" else f"{name}_over_select_", "ratio")
    return row


def compiled_plain(sets: Tensor, num_keep: int) -> Callable[[], Tensor]:
    """The loop in plain torch, with its steps compiled."""

    def step(closest: Tensor, row: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
        closest = torch.minimum(closest, row).scatter(1, pick.unsqueeze(1), -inf)
        return closest, closest.argmax(dim=1)

    # Where no compiler is, as in a rehearsal on a bare machine, at least the call is tried.
    torch.compiler.reset()
    fast_step = torch.compile(step, backend="inductor" if sets.is_cuda else "eager", dynamic=False)

    def picks() -> Tensor:
        unit = torch.nn.functional.normalize(sets, dim=2)
        distance = 1 - unit @ unit.mT
        distance.diagonal(dim1=1, dim2=2).fill_(inf)
        chosen = [distance.amin(dim=2).argmax(dim=1)]
        closest = torch.full_like(distance[:, 0], inf)
        index = torch.arange(len(sets), device=sets.device)
        for _ in range(1, num_keep):
            closest, pick = fast_step(closest, distance[index, chosen[-1]], chosen[-1])
            chosen.append(pick)
        return torch.stack(chosen, dim=1)

    return picks


def captured(sets: Tensor, num_keep: int) -> torch.cuda.CUDAGraph:
    """The product and the kernel in a graph."""
    fused_picks(Distances(sets, "cosine"), num_keep)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fused_picks(Distances(sets, "cosine", check=False), num_keep)
    return graph


def memory(device: torch.device, size: Size = MOST_TOKENS) -> dict[str, Any]:
    """Peak memory of one selection beyond its input."""
    total, width, num_keep = size
    tokens = FEATURES["gaussian"](total, width).to(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    select(tokens, num_keep=num_keep)
    peak = torch.cuda.max_memory_allocated(device) - before
    row = {"case": "memory", "features": "gaussian", "num_visual_tokens": total, "width": width, "num_keep": num_keep}
    return row | {"input_bytes": total * width * 4, "peak_bytes_beyond_input": peak}
