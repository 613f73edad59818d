"""The visual tokens of a call, and what a method asks for besides them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from divprune import DivPrune
from divprune.config import PruningConfig
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.items import Encoding
from divprune.methods import ItemContext
from divprune.methods.base import Method
from divprune.methods.item_context import Need


def encoded_for(model: Any, inputs: Mapping[str, Any], method: Method | None = None) -> Encoding:
    """What the package's encoder stage makes of a call, for a method that keeps everything."""
    method = method or DivPrune()
    ratio = None if method.count == "schedule" else 1.0
    return encode(ModelAdapter.of(model), PruningConfig(method, keep_ratio=ratio), inputs)


@dataclass(frozen=True)
class Curious(Method):
    """Wants to know everything."""

    name: ClassVar[str] = "curious"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {"vision_attention", "vision_keys", "patch_features", "text_embeddings"}
    )

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """The first."""
        return torch.arange(num_keep)
