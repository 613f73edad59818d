"""From which decoder layer on a model does without visual tokens: VTW's layer, found on a few samples and kept as JSON.

The search withdraws the tokens at one layer after the other and compares what the model says next.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import CalibrationError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.fingerprint import fingerprint, require_same_model
from divprune.huggingface.pruning import prune
from divprune.methods import VTW
from divprune.records import read_calibration, unreadable, write_calibration

VTW_KIND = "VTW"
PAPER_THRESHOLD = 0.003
"""Largest mean divergence for LLaVA-1.5-7B; the paper takes 0.0005 for 13B and 0.0001 for LLaVA-1.6-7B."""


@dataclass(frozen=True)
class VTWCalibration:
    """Where a model's visual tokens can be withdrawn.

    Attributes:
        model: fingerprint of the model, see `fingerprint`.
        layer: the first layer whose mean divergence is at most `threshold`.
        threshold: in nats.
        num_samples: prompts that were compared.
        divergences: for each layer tried: mean over the samples of KL(withdrawn || all tokens) of the next token.
    """

    model: str
    layer: int
    threshold: float
    num_samples: int
    divergences: dict[int, float]

    def method_for(self, model: PreTrainedModel) -> VTW:
        """Return the method at the layer that was found.

        Raises:
            CalibrationError: it was found on another model.
        """
        require_same_model(model, self.model, "run calibrate_vtw again")
        return VTW(layer=self.layer)

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        write_calibration(path, VTW_KIND, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> "VTWCalibration":
        """Read what `save` wrote.

        Raises:
            CalibrationError: there is no such file, or it holds something else.
        """
        fields = read_calibration(path, VTW_KIND)
        try:
            fields["divergences"] = {int(layer): float(value) for layer, value in fields["divergences"].items()}
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(path, VTW_KIND, error) from error


@torch.no_grad()
def calibrate_vtw(
    model: PreTrainedModel,
    samples: Iterable[Mapping[str, Any]],
    *,
    threshold: float = PAPER_THRESHOLD,
    first_layer: int = 5,
    after_call: Callable[[], None] = lambda: None,
) -> VTWCalibration:
    """Find the lowest layer from which on the visual tokens no longer matter.

    For layer K = `first_layer`, `first_layer` + 1, ... the mean over the samples of KL(p_K || p) is taken, where p is
    the model's distribution of the next token after the prompt and p_K the same with all visual tokens withdrawn at
    layer K. The search stops at the first K with a mean of at most `threshold` (VTW, arXiv 2405.05803; about 20
    samples). Every layer costs one forward pass a sample.

    Args:
        model: a model of a supported family that is not pruned.
        samples: model inputs as the processor makes them, with images; each may be a batch.
        threshold: eta, in nats, above 0.
        first_layer: where the search starts.
        after_call: called after each forward pass.

    Raises:
        ValueError: there are no samples, or an argument is out of range.
        CalibrationError: no layer meets the threshold.
        UnsupportedModelError: the model's layers cannot lose tokens.
    """
    prompts = [dict(sample) for sample in samples]
    last_layer = ModelAdapter.of(model).num_layers - 1
    if not prompts:
        raise ValueError("samples must hold at least one prompt, got none")
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    if not 1 <= first_layer <= last_layer:
        raise ValueError(f"first_layer must be between 1 and {last_layer} for this model, got {first_layer}")
    expected = _next_tokens(model, prompts, after_call)
    divergences: dict[int, float] = {}
    for layer in range(first_layer, last_layer + 1):
        with prune(model, VTW(layer=layer)):
            withdrawn = _next_tokens(model, prompts, after_call)
        parts = list(map(divergence, expected, withdrawn))
        divergences[layer] = float(torch.cat(parts).mean())
        if divergences[layer] <= threshold:
            return VTWCalibration(fingerprint(model), layer, threshold, len(torch.cat(parts)), divergences)
    best = min(divergences, key=divergences.__getitem__)
    raise CalibrationError(
        f"no layer from {first_layer} to {last_layer} meets threshold {threshold}: the smallest mean divergence is "
        f"{divergences[best]:.3g} at layer {best}; raise the threshold"
    )


def _next_tokens(model: PreTrainedModel, prompts: list[dict[str, Any]], after_call: Callable[[], None]) -> list[Tensor]:
    """For each batch of left-padded prompts, (B, vocabulary) log-probabilities of what follows."""
    found = []
    for prompt in prompts:
        found.append(model(**prompt).logits[:, -1].float().log_softmax(dim=-1))
        after_call()
    return found


def divergence(full: Tensor, withdrawn: Tensor) -> Tensor:
    """Return (B,) KL(withdrawn || full) in nats, of log-probabilities (B, vocabulary)."""
    return (withdrawn.exp() * (withdrawn - full)).sum(dim=-1)
