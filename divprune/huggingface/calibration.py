"""From which decoder layer on a model does without visual tokens: VTW's layer, found on a few samples and kept as JSON.

The search withdraws the tokens at one layer after the other and compares what the model says next.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.errors import CalibrationError, UnsupportedModelError
from divprune.huggingface.inside import num_layers
from divprune.huggingface.pruning import prune
from divprune.methods import VTW

FORMAT = "divprune VTW calibration, version 1"
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
        divergences: for each layer tried: mean over the samples of KL(all tokens || withdrawn) of the next token.
    """

    model: str
    layer: int
    threshold: float
    num_samples: int
    divergences: dict[int, float]

    def method_for(self, model: PreTrainedModel) -> VTW:
        """The method at the layer that was found.

        Raises:
            CalibrationError: it was found on another model.
        """
        seen = fingerprint(model)
        if seen != self.model:
            raise CalibrationError(
                f"calibration must be of this model, expected {seen}, got that of {self.model}; run calibrate_vtw again"
            )
        return VTW(layer=self.layer)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file."""
        Path(path).write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "VTWCalibration":
        """Reads what `save` wrote.

        Raises:
            CalibrationError: the file holds something else.
        """
        try:
            fields: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            if fields.pop("format") != FORMAT:
                raise KeyError("format")
            fields["divergences"] = {int(layer): float(value) for layer, value in fields["divergences"].items()}
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path} must be a VTW calibration that divprune saved, got {error!r}") from error


@torch.no_grad()
def calibrate_vtw(
    model: PreTrainedModel,
    samples: Iterable[Mapping[str, Any]],
    *,
    threshold: float = PAPER_THRESHOLD,
    first_layer: int = 5,
) -> VTWCalibration:
    """Finds the lowest layer from which on the visual tokens no longer matter.

    For layer K = `first_layer`, `first_layer` + 1, ... the mean over the samples of KL(p || p_K) is taken, where p is
    the model's distribution of the next token after the prompt and p_K the same with all visual tokens withdrawn at
    layer K. The search stops at the first K with a mean of at most `threshold` (VTW, arXiv 2405.05803; about 20
    samples). Every layer costs one forward pass a sample.

    Args:
        model: a model of a supported family that is not pruned.
        samples: model inputs as the processor makes them, with pictures; each may be a batch.
        threshold: eta, in nats, above 0.
        first_layer: where the search starts.

    Raises:
        ValueError: there are no samples, or an argument is out of range.
        CalibrationError: no layer meets the threshold.
        UnsupportedModelError: the model's layers cannot lose tokens.
    """
    prompts = [dict(sample) for sample in samples]
    last_layer = num_layers(model) - 1
    if not prompts:
        raise ValueError("samples must hold at least one prompt, got none")
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    if not 1 <= first_layer <= last_layer:
        raise ValueError(f"first_layer must be between 1 and {last_layer} for this model, got {first_layer}")
    expected = [_next_token(model, prompt) for prompt in prompts]
    divergences: dict[int, float] = {}
    for layer in range(first_layer, last_layer + 1):
        with prune(model, VTW(layer=layer)):
            withdrawn = [_next_token(model, prompt) for prompt in prompts]
        parts = list(map(_divergence, expected, withdrawn))
        divergences[layer] = float(torch.cat(parts).mean())
        if divergences[layer] <= threshold:
            return VTWCalibration(fingerprint(model), layer, threshold, len(torch.cat(parts)), divergences)
    best = min(divergences, key=divergences.__getitem__)
    raise CalibrationError(
        f"no layer from {first_layer} to {last_layer} meets threshold {threshold}: the smallest mean divergence is "
        f"{divergences[best]:.3g} at layer {best}; raise the threshold"
    )


def fingerprint(model: PreTrainedModel) -> str:
    """A short text that tells models apart: type, size, and a hash of the weights that end the language model.

    The hash is of the output layer's first rows and does not depend on whether weights are held in float32 or bfloat16.

    Raises:
        UnsupportedModelError: the weights are not in memory.
    """
    head = cast(Any, model.get_output_embeddings()).weight
    if head.device.type == "meta":
        raise UnsupportedModelError("the output layer must be in memory to tell the model, got one that is offloaded")
    rows = head[:16].detach().to("cpu", torch.bfloat16).contiguous()
    digest = hashlib.sha256(rows.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    config = model.config.get_text_config()
    return f"{model.config.model_type}, {config.num_hidden_layers} layers of {config.hidden_size}, weights {digest}"


def _next_token(model: PreTrainedModel, prompt: dict[str, Any]) -> Tensor:
    """(B, vocabulary) log-probabilities after left-padded prompts."""
    logits: Tensor = model(**prompt).logits[:, -1]
    return logits.float().log_softmax(dim=-1)


def _divergence(full: Tensor, withdrawn: Tensor) -> Tensor:
    """(B,) KL(full || withdrawn) in nats, of log-probabilities (B, vocabulary)."""
    return (full.exp() * (full - withdrawn)).sum(dim=-1)
