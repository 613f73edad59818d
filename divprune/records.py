"""One result record: the numbers of a measured run and where they come from, as JSON.

Tables and figures are made from records and from nothing else. A record names no host and no path.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from divprune.errors import CalibrationError, RecordError
from divprune.outputs import FileKind, safe_output, write_whole

FORMAT = 1
PACKAGES = ("divprune", "torch", "transformers", "numpy")
_ROOT = Path(__file__).parent.parent
_RECORD = FileKind("result record", "one in another folder", rb'\A\s*\{\s*"format": \d+,\s*"name": "')


@dataclass(frozen=True)
class Record:
    """A measured run.

    Attributes:
        name: what was measured; the file is called `NAME.json`.
        config: the settings of the run: sizes, warm-up, repeats, seeds.
        rows: the numbers, one mapping a row; times in seconds, names ending in their unit.
        provenance: git revision, versions, machine and date; see `provenance`.
    """

    name: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any] = field(default_factory=lambda: provenance())

    def save(self, folder: Path) -> Path:
        """Write `NAME.json` into a folder, whole or not at all; it replaces a record, and no other file.

        Raises:
            ArgumentError: it cannot be written, or another file of this name is there.
        """
        path = check_record_place(folder, self.name)
        write_whole(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n")
        return path


def check_record_place(folder: Path, name: str) -> Path:
    """Return where a record of a name goes; commands that measure for long ask before they begin.

    Raises:
        ArgumentError: it cannot be written there, or a file is there that is no record, of whatever format.
    """
    return safe_output("output", folder / f"{name}.json", _RECORD)


def load_record(path: Path) -> Record:
    """Read a record.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: the file is no record, or one of a newer format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path.name} must be JSON, got {error}") from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise RecordError(f"{path.name} must be a result record of format {FORMAT}; measure again")
    expected = {"name", "config", "rows", "provenance"}
    if content.keys() != expected:
        raise RecordError(f"{path.name} must hold {sorted(expected)}, got {sorted(content)}")
    return Record(**content)


def quantiles(samples: Sequence[float], prefix: str = "", unit: str = "seconds") -> dict[str, float]:
    """Median, 20th and 80th percentile of repeated measurements, by name: `{prefix}median_{unit}` and so on."""
    ordered = sorted(samples)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        below, above = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
        return below + (place - int(place)) * (above - below)

    values = {"p20": percentile(0.2), "median": median(ordered), "p80": percentile(0.8)}
    return {f"{prefix}{name}_{unit}": value for name, value in values.items()}


def seconds_text(seconds: float) -> str:
    """Return a duration with its unit, three figures at most."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def duration_text(seconds: float) -> str:
    """Return about how long something takes, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def provenance() -> dict[str, Any]:
    """Locate where numbers measured now come from."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "git_revision": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": _machine(),
    }


def _git(*arguments: str) -> str | None:
    """Return what git says of our own checkout; None elsewhere, also inside a repository of somebody else."""
    try:
        ours = (_ROOT / ".git").exists() and '\nname = "divprune"\n' in (_ROOT / "pyproject.toml").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        return None
    # Neither hooks nor a monitor of files run, nor does a variable name another repository.
    switched_off = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(_ROOT), *switched_off, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _machine() -> dict[str, Any]:
    machine: dict[str, Any] = {"system": platform.system(), "processor": _processor(), "num_cores": os.cpu_count()}
    torch = sys.modules.get("torch")  # what measures with torch has imported it
    if torch is not None:
        has_gpu = torch.cuda.is_available()
        machine["num_threads"] = torch.get_num_threads()
        machine["capability"] = _capability(torch.backends.cpu.get_cpu_capability())
        machine["gpu"] = torch.cuda.get_device_name() if has_gpu else None
    return machine


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _capability(of_torch: str) -> str:
    """Return the instructions for products: what torch uses, such as "AVX2" or "AVX512", and whether there is AMX."""
    return f"{of_torch} AMX" if "amx_tile" in _cpuinfo("flags").split() else of_torch


def _cpuinfo(name: str) -> str:
    """Return the first processor's field of Linux; empty where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def write_calibration(path: str | Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: where; a calibration that is there is replaced.
        kind: what was calibrated, such as "VTW".
        fields: what JSON can hold.

    Raises:
        ArgumentError: it cannot be written there, or another file is there.
    """
    write_whole(
        safe_output("path", Path(path), calibration_file(kind)),
        json.dumps({"format": _format(kind), **fields}, indent=2, allow_nan=False) + "\n",
    )


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
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, kind, error) from error
    if not isinstance(fields, dict) or fields.pop("format", None) != _format(kind):
        raise CalibrationError(f"{path} must be a {kind} calibration that divprune saved, got another file")
    return fields


def calibration_file(kind: str) -> FileKind:
    """Describe the files of calibrations of a kind, such as "VTW"."""
    mark = rb'\A\s*\{\s*"format": "' + re.escape(_format(kind)).encode()
    return FileKind(f"{kind} calibration", "calibration.json", mark)


def unreadable(path: str | Path, kind: str, error: Exception) -> CalibrationError:
    """Return the error to raise for a file whose fields are not what they should be."""
    return CalibrationError(f"{path} must be a {kind} calibration that divprune saved, got {error!r}")


def _format(kind: str) -> str:
    return f"divprune {kind} calibration, version 1"


_PIECE = 65536  # bytes
_NUM_PIECES = 256


def checksum(files: Iterable[Path]) -> str:
    """Return a checksum of the files' names, sizes and content; of large files, of pieces spread over the content."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _starts(size: int) -> Iterable[int]:
    if size <= _PIECE * _NUM_PIECES:
        return range(0, size, _PIECE)
    return (place * (size - _PIECE) // (_NUM_PIECES - 1) for place in range(_NUM_PIECES))
