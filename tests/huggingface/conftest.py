"""Logits are compared in float64."""

from tests.support.fixtures import compared_logits, logits_in_float64

__all__ = ["compared_logits", "logits_in_float64"]
