"""Calibrate: find out what VTW and FitPrune have to know about one model before it is pruned."""

from divprune.calibration.fitprune import FitPruneCalibration, calibrate_fitprune
from divprune.calibration.run import CalibrationOptions, find_fitprune_recipe, find_vtw_layer
from divprune.calibration.vtw import VTWCalibration, calibrate_vtw

__all__ = [
    "CalibrationOptions",
    "FitPruneCalibration",
    "VTWCalibration",
    "calibrate_fitprune",
    "calibrate_vtw",
    "find_fitprune_recipe",
    "find_vtw_layer",
]
