"""What a prompt costs in each decoder layer: columns, and bytes of keys and values."""

from dataclasses import replace

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
    num_layers = model.config.get_text_config().num_hidden_layers
    lengths = (sequence_lengths,) * num_layers if isinstance(sequence_lengths, int) else sequence_lengths
    column_bytes = len(report.keep_mask) * _bytes_per_column(model)
    return replace(
        report,
        sequence_lengths=lengths,
        kv_cache_bytes=column_bytes * sum(lengths),
        kv_cache_bytes_unpruned=column_bytes * full_length * num_layers,
    )


def _bytes_per_column(model: PreTrainedModel) -> int:
    """Bytes of one token's keys and values in one layer."""
    config = model.config.get_text_config()
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * num_heads * head_size * model.dtype.itemsize)
