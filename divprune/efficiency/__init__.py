"""What pruning saves: time and memory measured on the model at hand, and FLOPs worked out from its shape."""

from divprune.efficiency.bench import UNPRUNED_VARIANT, Measurement, Variant, run_bench, run_once
from divprune.efficiency.equal_flops import num_keep_for_ratio
from divprune.efficiency.flops import Cost, compare, prefill_flop
from divprune.efficiency.latency import Latency, interleave, prefill_seconds
from divprune.efficiency.measure import GenerationTiming, seconds_of, time_generation
from divprune.efficiency.memory import in_own_process, peak_memory_bytes
from divprune.efficiency.prefill_costs import FlopsOptions, PrefillCosts, prefill_costs
from divprune.efficiency.random_model import image_like, random_inputs, random_model
from divprune.efficiency.reference_models import ARCHITECTURES, Architecture, architecture_config, get_architecture
from divprune.efficiency.schedule import DropSchedule, schedule_of
from divprune.efficiency.shapes import ModelShape, model_shape
from divprune.efficiency.subject import BenchOptions, BenchResult, BenchSubject, measure_methods, measure_variants

__all__ = [
    "ARCHITECTURES",
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
