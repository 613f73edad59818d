"""The visual tokens of a call, and what a method asks for besides them."""

from collections.abc import Mapping
from typing import Any

from divprune import DivPrune
from divprune.config import PruningConfig
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.items import Encoding
from divprune.methods import Method


def encoded_for(model: Any, inputs: Mapping[str, Any], method: Method | None = None) -> Encoding:
    """What the package's encoder stage makes of a call, for a method that keeps everything."""
    method = method or DivPrune()
    ratio = None if method.count == "schedule" else 1.0
    return encode(ModelAdapter.of(model), PruningConfig(method, keep_ratio=ratio), inputs)
