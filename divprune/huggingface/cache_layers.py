"""What a token costs in the cache of each decoder layer, read from a model: what reports add up."""

import math
import operator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class CacheLayers:
    """What a token costs in the cache of each decoder layer.

    Attributes:
        bytes_per_token: of its key and value.
        most_tokens: how many a layer's cache holds at most: a sliding window, or none without keys of its own.
    """

    bytes_per_token: tuple[int, ...]
    most_tokens: tuple[float, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> "CacheLayers":
        """Read a model's configuration and its layers."""
        config: Any = model.config.get_text_config()
        num_layers, window = config.num_hidden_layers, getattr(config, "sliding_window", None)
        types = (
            getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * num_layers
        )
        # A sliding layer keeps what the next token will see besides itself.
        limits = {"full_attention": math.inf, "sliding_attention": (window or math.inf) - 1}
        num_own = num_layers - (getattr(config, "num_kv_shared_layers", None) or 0)
        most = tuple(limits.get(each, 0) if layer < num_own else 0 for layer, each in enumerate(types))
        layers = cast(nn.ModuleList, model.get_decoder().layers)
        # Some families give their sliding layers other heads.
        configs = getattr(config, "per_layer_config", None) or [config] * len(layers)
        widths = [_width(getattr(layer, "self_attn", None), own) for layer, own in zip(layers, configs, strict=True)]
        return cls(tuple(2 * width * model.dtype.itemsize for width in widths), most)

    def total(self, batch_size: int, lengths: tuple[int, ...]) -> int:
        """Add up the bytes of `batch_size` sequences that have `lengths` tokens in the layers."""
        held = (min(length, limit) for length, limit in zip(lengths, self.most_tokens, strict=True))
        return batch_size * int(sum(map(operator.mul, held, self.bytes_per_token)))


def _width(attention: Any, config: Any) -> int:
    """Numbers in a token's key; layers of one model may differ (Gemma 4)."""
    projection = getattr(attention, "k_proj", None)
    if projection is not None and hasattr(projection, "out_features"):
        return int(projection.out_features)
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(num_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads))
