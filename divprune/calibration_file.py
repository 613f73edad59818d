"""Calibrations on disk: what was found out about one model, as a JSON file.

Used by the methods that are calibrated and by what calibrates them; knows neither.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divprune.errors import CalibrationError
from divprune.records import write_whole


def write_calibration(path: str | Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: where; a file that is there is replaced.
        kind: what was calibrated, such as "VTW".
        fields: what JSON can hold.
    """
    write_whole(Path(path), json.dumps({"format": _format(kind), **fields}, indent=2, allow_nan=False) + "\n")


def read_calibration(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the fields that `write_calibration` wrote.

    Raises:
        CalibrationError: there is no such file, or it holds something else.
    """
    try:
        # The shell expands no ~ within `fitprune:recipe=~/recipe.json`.
        fields = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CalibrationError(f"no such {kind} calibration: {path}; make one with `divprune calibrate`") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, kind, error) from error
    if not isinstance(fields, dict) or fields.pop("format", None) != _format(kind):
        raise CalibrationError(f"{path} must be a {kind} calibration that divprune saved, got another file")
    return fields


def unreadable(path: str | Path, kind: str, error: Exception) -> CalibrationError:
    """Return the error to raise for a file whose fields are not what they should be."""
    return CalibrationError(f"{path} must be a {kind} calibration that divprune saved, got {error!r}")


def _format(kind: str) -> str:
    return f"divprune {kind} calibration, version 1"
