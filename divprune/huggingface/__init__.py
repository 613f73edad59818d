"""Pruning for Hugging Face transformers models."""

from divprune.huggingface.families.registry import Family, supported_families
from divprune.huggingface.families.token_layout import TokenBox
from divprune.huggingface.pruning import Pruning, attach, prune
from divprune.huggingface.report import ItemReport, PruningReport
from divprune.huggingface.tested_version import warn_beyond_tested

__all__ = [
    "Family",
    "ItemReport",
    "Pruning",
    "PruningReport",
    "TokenBox",
    "attach",
    "prune",
    "supported_families",
]

warn_beyond_tested()
