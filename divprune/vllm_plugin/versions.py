"""The range of vLLM versions that this plugin was tested with.

What decides whether a version is served is not its number but `divprune.vllm_plugin.contracts`: internals that the
plugin relies on are what they were, or they are not. Beyond the range one warning says that answers were not compared.
"""

import re
import warnings
from functools import cache
from importlib import import_module

TESTED_RANGE = ">=0.32,<0.34"
"""As in the extra "vllm" of pyproject.toml."""


def is_tested() -> bool:
    """Return whether the installed vLLM lies in the tested range."""
    first, end = (_numbers(bound) for bound in TESTED_RANGE.split(","))
    return first <= _numbers(installed_version()) < end


def installed_version() -> str:
    """Return the version of the installed vLLM, without its build label: "0.32.0"."""
    # Distributions for some hardware have other names, so that the module has to be asked.
    version: str = import_module("vllm.version").__version__
    return version.partition("+")[0]


def warn_if_untested(is_allowed: bool) -> None:
    """Warn once in a process of a version outside the range.

    Args:
        is_allowed: Whether the user knows ("allow_untested_vllm").
    """
    if not is_allowed and not is_tested():
        _warn(installed_version())


@cache
def _warn(version: str) -> None:
    warnings.warn(
        f"divprune was tested with vllm{TESTED_RANGE}, this is {version}. The internals that it relies on are the same "
        "by name and signature, but nobody has compared answers: compare some with those of a tested version, then set "
        '"allow_untested_vllm": true in the "divprune" entry of hf_overrides',
        stacklevel=2,
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Return major and minor version; (0, 0) for a build without a number."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else (0, 0)
