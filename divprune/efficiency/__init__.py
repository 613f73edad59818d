"""What pruning saves: time, measured on the model at hand."""

from divprune.efficiency.latency import Latency, interleave, prefill_seconds

__all__ = ["Latency", "interleave", "prefill_seconds"]
