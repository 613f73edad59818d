"""The training loop that all stages share: two optimizers, a schedule, checkpoints that survive a kill, a log."""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm


class Stage(Protocol):
    """A training stage: its parameters, its loss as a function of the step number alone, and its scores."""

    @property
    def name(self) -> str:
        """Names the checkpoint."""

    @property
    def trained(self) -> nn.Module:
        """What the optimizers change and the checkpoint keeps."""

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of one step."""

    def scores(self) -> dict[str, float]:
        """Shares right on validation scenes."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning rates of a stage: linear warm-up, plateau, linear decay to zero."""

    num_steps: int
    matrix_rate: float = 0.02
    other_rate: float = 2e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    check_every: int = 200  # steps between checkpoints, each with its line in the log

    def factor(self, step: int) -> float:
        """Return the fraction of the full learning rate at a step."""
        left = (self.num_steps - step) / (self.decay_share * self.num_steps)
        return min(1.0, (step + 1) / self.warmup_steps, max(left, 0.0))


def optimizers(trained: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of layers and projector, AdamW for embeddings, norms, biases and heads."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained.named_parameters():
        inside = parameter.ndim == 2 and (".layers." in name or name.startswith("projector"))
        (matrices if inside else others).append(parameter)
    chosen: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.98), weight_decay=0.01)
    ]
    if matrices:
        chosen.append(torch.optim.Muon(matrices, lr=schedule.matrix_rate, weight_decay=0.01))
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return chosen


def train_step(stage: Stage, chosen: list[torch.optim.Optimizer], schedule: Schedule, step: int) -> float:
    """One update; returns the loss."""
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * schedule.factor(step)
        optimizer.zero_grad(set_to_none=True)
    loss = stage.loss(step)
    loss.backward()
    nn.utils.clip_grad_norm_(stage.trained.parameters(), 1.0)
    for optimizer in chosen:
        optimizer.step()
    return loss.item()


def run_stage(stage: Stage, schedule: Schedule, output: Path) -> None:
    """Train a stage to its end, from its last checkpoint if there is one."""
    chosen = optimizers(stage.trained, schedule)
    checkpoint = output / f"{stage.name}.pt"
    first, seconds = _resume(checkpoint, stage, chosen)
    started = time.monotonic() - seconds
    running = math.nan
    with tqdm(range(first, schedule.num_steps), initial=first, total=schedule.num_steps, desc=stage.name) as bar:
        for step in bar:
            loss = train_step(stage, chosen, schedule, step)
            running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
            bar.set_postfix(loss=f"{running:.3f}", refresh=False)
            if (step + 1) % schedule.check_every == 0 or step + 1 == schedule.num_steps:
                _save(checkpoint, stage, chosen, step + 1, time.monotonic() - started)
                _log(output, stage, step + 1, running, time.monotonic() - started)


def _save(checkpoint: Path, stage: Stage, chosen: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
    """Write whole or not at all."""
    state = {
        "trained": stage.trained.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in chosen],
        "step": step,
        "seconds": seconds,
    }
    partial = checkpoint.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, checkpoint)


def _resume(checkpoint: Path, stage: Stage, chosen: list[torch.optim.Optimizer]) -> tuple[int, float]:
    """Load the last checkpoint; the next step's number and the seconds spent so far."""
    if not checkpoint.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    stage.trained.load_state_dict(state["trained"])
    for optimizer, saved in zip(chosen, state["optimizers"], strict=True):
        rates = [group["full_rate"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        # The schedule given now holds, should it differ from the one of the interrupted run.
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["full_rate"] = rate
    return int(state["step"]), float(state["seconds"])


def _log(output: Path, stage: Stage, step: int, loss: float, seconds: float) -> None:
    """Append a JSON line."""
    scores = {name: round(score, 4) for name, score in stage.scores().items()}
    line = {"stage": stage.name, "step": step, "loss": round(loss, 4), "seconds": round(seconds), **scores}
    with (output / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
