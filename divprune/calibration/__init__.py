"""Calibrations: what VTW and FitPrune find out about one model before it is pruned."""

from divprune.calibration.fitprune import FitPruneCalibration, calibrate_fitprune
from divprune.calibration.vtw import VTWCalibration, calibrate_vtw

__all__ = ["FitPruneCalibration", "VTWCalibration", "calibrate_fitprune", "calibrate_vtw"]
