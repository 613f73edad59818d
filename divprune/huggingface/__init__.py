"""Pruning for Hugging Face transformers models."""

from divprune.huggingface.calibration import VTWCalibration, calibrate_vtw
from divprune.huggingface.families import Family, supported_families
from divprune.huggingface.layouts import TokenBox
from divprune.huggingface.pruning import Pruning, attach, prune
from divprune.huggingface.report import ItemReport, PruningReport
from divprune.huggingface.tested_version import warn_beyond_tested

__all__ = [
    "Family",
    "ItemReport",
    "Pruning",
    "PruningReport",
    "TokenBox",
    "VTWCalibration",
    "attach",
    "calibrate_vtw",
    "prune",
    "supported_families",
]

warn_beyond_tested()
