"""What a prompt costs in each decoder layer: columns, and bytes of keys and values."""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from divprune.huggingface.report import PruningReport


def with_cache_size(
    report: PruningReport, model: PreTrainedModel, full_length: int, sequence_lengths: int | tuple[int, ...]
) -> PruningReport:
    """A copy of a report that tells the savings.

    Args:
        report: report of a call on a batch.
        model: the model.
        full_length: columns of the original prompt.
        sequence_lengths: columns that each decoder layer saw; one number if all saw the same.
    """
    column_bytes = [len(report.keep_mask) * size * model.dtype.itemsize for size in _numbers_per_column(model)]
    lengths = (sequence_lengths,) * len(column_bytes) if isinstance(sequence_lengths, int) else sequence_lengths
    return replace(
        report,
        sequence_lengths=lengths,
        kv_cache_bytes=sum(size * length for size, length in zip(column_bytes, lengths, strict=True)),
        kv_cache_bytes_unpruned=sum(column_bytes) * full_length,
    )


def _numbers_per_column(model: PreTrainedModel) -> list[int]:
    """How many numbers one token's keys and values are, in each layer."""
    config: Any = model.config.get_text_config()
    # Some families give their sliding layers other heads.
    layers = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    return [_numbers_of(layer) for layer in layers]


def _numbers_of(config: Any) -> int:
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * num_heads * head_size)
