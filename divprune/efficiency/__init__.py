"""What pruning saves: time and memory measured on the model at hand, and FLOPs worked out from its shape.

Names are imported on first use: FLOPs from sizes need neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divprune.efficiency.bench import UNPRUNED_VARIANT, Measurement, Variant, run_bench, run_once
    from divprune.efficiency.equal_flops import num_keep_for_ratio
    from divprune.efficiency.flops import Cost, compare, prefill_flop
    from divprune.efficiency.latency import Latency, interleave, prefill_seconds
    from divprune.efficiency.measure import GenerationTiming, seconds_of, time_generation
    from divprune.efficiency.memory import in_own_process, peak_memory_bytes
    from divprune.efficiency.prefill_flops import FlopsOptions, PrefillCosts, prefill_costs
    from divprune.efficiency.random_models import image_like, random_inputs, random_model
    from divprune.efficiency.reference_models import (
        ARCHITECTURES,
        PAPER_ARCHITECTURES,
        Architecture,
        architecture_config,
        get_architecture,
    )
    from divprune.efficiency.schedule import DropSchedule, schedule_of
    from divprune.efficiency.shapes import ModelShape, model_shape
    from divprune.efficiency.subject import BenchOptions, BenchResult, BenchSubject, measure_methods, measure_variants

_HOME = {
    "ARCHITECTURES": "reference_models",
    "Architecture": "reference_models",
    "BenchOptions": "subject",
    "BenchResult": "subject",
    "BenchSubject": "subject",
    "Cost": "flops",
    "DropSchedule": "schedule",
    "FlopsOptions": "prefill_flops",
    "GenerationTiming": "measure",
    "Latency": "latency",
    "Measurement": "bench",
    "ModelShape": "shapes",
    "PAPER_ARCHITECTURES": "reference_models",
    "PrefillCosts": "prefill_flops",
    "UNPRUNED_VARIANT": "bench",
    "Variant": "bench",
    "architecture_config": "reference_models",
    "compare": "flops",
    "get_architecture": "reference_models",
    "image_like": "random_models",
    "in_own_process": "memory",
    "interleave": "latency",
    "measure_methods": "subject",
    "measure_variants": "subject",
    "model_shape": "shapes",
    "num_keep_for_ratio": "equal_flops",
    "peak_memory_bytes": "memory",
    "prefill_costs": "prefill_flops",
    "prefill_flop": "flops",
    "prefill_seconds": "latency",
    "random_inputs": "random_models",
    "random_model": "random_models",
    "run_bench": "bench",
    "run_once": "bench",
    "schedule_of": "schedule",
    "seconds_of": "measure",
    "time_generation": "measure",
}

__all__ = [
    "ARCHITECTURES",
    "PAPER_ARCHITECTURES",
    "UNPRUNED_VARIANT",
    "Architecture",
    "BenchOptions",
    "BenchResult",
    "BenchSubject",
    "Cost",
    "DropSchedule",
    "FlopsOptions",
    "GenerationTiming",
    "Latency",
    "Measurement",
    "ModelShape",
    "PrefillCosts",
    "Variant",
    "architecture_config",
    "compare",
    "get_architecture",
    "image_like",
    "in_own_process",
    "interleave",
    "measure_methods",
    "measure_variants",
    "model_shape",
    "num_keep_for_ratio",
    "peak_memory_bytes",
    "prefill_costs",
    "prefill_flop",
    "prefill_seconds",
    "random_inputs",
    "random_model",
    "run_bench",
    "run_once",
    "schedule_of",
    "seconds_of",
    "time_generation",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"divprune.efficiency.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
