"""What each method costs in a whole call: all of them in one run, in turns, next to the unpruned model.

image -> visual tokens -> selection -> prompt -> LLM prefill -> decoding: `generate` is called as a user would call it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from divprune.config import PruningConfig
from divprune.efficiency.foreign_load import BUSY_CORES, quiet_rounds
from divprune.efficiency.measure import GenerationTiming, time_generation
from divprune.huggingface import Pruning, prune
from divprune.huggingface.model_inputs import cache_in
from divprune.methods.registry import fidelity_of
from divprune.records import quantiles


@dataclass(frozen=True)
class Variant:
    """One way of running the model.

    Attributes:
        name: how the row is called.
        config: how it is pruned; None for the model as it is.
    """

    name: str
    config: PruningConfig | None = None

    def on(self, model: PreTrainedModel) -> AbstractContextManager[Pruning | None]:
        """Return the context manager under which to call the model."""
        return nullcontext() if self.config is None else prune(model, self.config)


UNPRUNED_VARIANT = Variant("unpruned")


@dataclass
class Measurement:
    """What one variant took.

    Attributes:
        variant: what was run.
        kv_cache_bytes: keys and values of the prompt, as the cache held them after the prefill.
        num_visual_tokens: M, all items together; None if the model ran unpruned.
        num_encoded: those that the vision encoder made, fewer with an encoder option; None if the model ran unpruned.
        num_kept: visual tokens still there in the last layer; None if the model ran unpruned.
        timings: one a round, warm-up left out.
        selection_seconds: one a round; empty if the model ran unpruned.
        encoding_seconds: of the vision encoder, alike.
        beside: what a record says of the load beside which all variants ran; see `Rounds.as_config`.
    """

    variant: Variant
    kv_cache_bytes: int
    num_visual_tokens: int | None
    num_encoded: int | None
    num_kept: int | None
    timings: list[GenerationTiming] = field(default_factory=list)
    selection_seconds: list[float] = field(default_factory=list)
    encoding_seconds: list[float] = field(default_factory=list)
    beside: Mapping[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Return the row of a record: medians, 20th and 80th percentiles."""
        row: dict[str, Any] = {
            "method": self.variant.name,
            "fidelity": fidelity_of(self.variant.name),
            "num_visual_tokens": self.num_visual_tokens,
            "num_encoded": self.num_encoded,
            "num_kept": self.num_kept,
            "kv_cache_bytes": self.kv_cache_bytes,
        }
        for name in ("prefill", "ttft", "end_to_end"):
            row |= quantiles([getattr(timing, f"{name}_seconds") for timing in self.timings], f"{name}_")
        rates = [1 / timing.decode_seconds_per_token for timing in self.timings]
        row |= quantiles(rates, "decode_", "tokens_per_second")
        if self.selection_seconds:
            row |= quantiles(self.encoding_seconds, "encoding_") | quantiles(self.selection_seconds, "selection_")
        return row


def run_bench(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    variants: Sequence[Variant],
    *,
    num_new_tokens: int,
    repeats: int,
    max_seconds: float = float("inf"),
    after_call: Callable[[], object] = lambda: None,
) -> list[Measurement]:
    """Measure several variants in turns; on a CPU, rounds beside other load are measured again.

    Args:
        model: a model of a supported family.
        inputs: what `generate` takes: one prompt with its images, on the model's device.
        variants: what is compared.
        num_new_tokens: tokens generated in each call, at least 2.
        repeats: rounds after the warm-up, at least 1.
        max_seconds: no new round starts after this much time; the first one always does.
        after_call: called after each call of the warm-up and the rounds wanted, for a progress bar.

    Raises:
        ValueError: `num_new_tokens` or `repeats` is too small, or a variant does not fit the model.
    """
    if num_new_tokens < 2:
        raise ValueError(f"num_new_tokens must be at least 2, to time decoding, got {num_new_tokens}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    measurements = []
    for variant in variants:
        measurements.append(_warm_up(model, inputs, variant))
        after_call()
    calls_left = repeats * len(measurements)

    def measure_all() -> list[tuple[GenerationTiming, tuple[float, float] | None]]:
        nonlocal calls_left
        found = []
        for measurement in measurements:
            found.append(_measure(model, inputs, measurement.variant, num_new_tokens))
            calls_left -= 1
            if calls_left >= 0:
                after_call()
        return found

    busy_cores = BUSY_CORES if model.device.type == "cpu" else float("inf")
    rounds = quiet_rounds(measure_all, repeats, max_seconds=max_seconds, busy_cores=busy_cores)
    for measurement, results in zip(measurements, zip(*rounds.results, strict=True), strict=True):
        measurement.timings = [timing for timing, _ in results]
        parts = [seconds for _, seconds in results if seconds is not None]
        measurement.selection_seconds = [selection for selection, _ in parts]
        measurement.encoding_seconds = [encoding for _, encoding in parts]
        measurement.beside = rounds.as_config()
    return measurements


def run_once(model: PreTrainedModel, inputs: Mapping[str, Any], variant: Variant, num_new_tokens: int) -> None:
    """Make one call, whose memory is of interest."""
    with variant.on(model):
        time_generation(model, inputs, num_new_tokens)


def _warm_up(model: PreTrainedModel, inputs: Mapping[str, Any], variant: Variant) -> Measurement:
    with variant.on(model) as pruning:
        generate: Any = model.generate
        output = generate(**inputs, max_new_tokens=1, do_sample=False, num_beams=1, return_dict_in_generate=True)
    report = pruning.last if pruning is not None else None
    return Measurement(
        variant,
        cache_bytes(cache_in(output)),
        None if report is None else report.num_visual_tokens,
        None if report is None else report.num_encoded,
        None if report is None else report.num_kept,
    )


def _measure(
    model: PreTrainedModel, inputs: Mapping[str, Any], variant: Variant, num_new_tokens: int
) -> tuple[GenerationTiming, tuple[float, float] | None]:
    """Return what one call took, and its selection and vision encoder; None if the model ran unpruned."""
    with variant.on(model) as pruning:
        timing = time_generation(model, inputs, num_new_tokens)
    report = None if pruning is None else pruning.last
    return timing, None if report is None else (report.selection_seconds, report.encoding_seconds)


def cache_bytes(cache: Any) -> int:
    """Return the bytes of all keys and values in a cache."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
