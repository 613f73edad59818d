"""The newest transformers that the tests ran with, and the warning beside a newer one (docs/versions.md)."""

import warnings

import transformers
from packaging.version import Version

NEWEST_TESTED = "5.24"


def warn_beyond_tested(installed: str = transformers.__version__) -> None:
    """Warn once a process if the installed transformers has a newer minor version than the tests ran with."""
    if Version(installed).release[:2] > Version(NEWEST_TESTED).release[:2]:
        warnings.warn(
            f"transformers {installed} is newer than {NEWEST_TESTED}, the newest that divprune is tested with: compare "
            f"some answers with keep_ratio=1, or pip install 'transformers=={NEWEST_TESTED}.*'",
            stacklevel=2,
        )
