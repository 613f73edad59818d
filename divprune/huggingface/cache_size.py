"""What a prompt costs in each decoder layer: columns, and bytes of keys and values."""

import math
import operator
from dataclasses import replace
from typing import Any, cast

from torch import nn
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
    bytes_per_column = _bytes_per_column(model)
    num_layers, batch_size = len(bytes_per_column), len(report.keep_mask)
    lengths = (sequence_lengths,) * num_layers if isinstance(sequence_lengths, int) else sequence_lengths
    limits = _most_columns(model)

    def total(columns: tuple[int, ...]) -> int:
        held = (min(length, limit) for length, limit in zip(columns, limits, strict=True))
        return batch_size * int(sum(map(operator.mul, held, bytes_per_column)))

    return replace(
        report,
        sequence_lengths=lengths,
        kv_cache_bytes=total(lengths),
        kv_cache_bytes_unpruned=total((full_length,) * num_layers),
    )


def _most_columns(model: PreTrainedModel) -> list[float]:
    """How many columns each layer's cache holds at most: none where the layer has no keys of its own."""
    config = model.config.get_text_config()
    num_layers, window = config.num_hidden_layers, getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * num_layers
    # A sliding layer keeps what the next token will see besides itself.
    limits = {"full_attention": math.inf, "sliding_attention": (window or math.inf) - 1}
    num_own = num_layers - (getattr(config, "num_kv_shared_layers", None) or 0)
    return [limits.get(kind, 0) if layer < num_own else 0 for layer, kind in enumerate(kinds)]


def _bytes_per_column(model: PreTrainedModel) -> list[int]:
    """Bytes of one token's keys and values in each layer."""
    config: Any = model.config.get_text_config()
    layers = cast(nn.ModuleList, model.get_decoder().layers)
    # Some families give their sliding layers other heads.
    configs = getattr(config, "per_layer_config", None) or [config] * len(layers)
    widths = [_width(getattr(layer, "self_attn", None), own) for layer, own in zip(layers, configs, strict=True)]
    return [2 * width * model.dtype.itemsize for width in widths]


def _width(attention: Any, config: Any) -> int:
    """Numbers in a token's key; layers of one model may differ (Gemma 4)."""
    projection = getattr(attention, "k_proj", None)
    if projection is not None and hasattr(projection, "out_features"):
        return int(projection.out_features)
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(num_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads))
