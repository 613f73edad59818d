"""The vLLM versions that this plugin was tested with; it relies on internals that change between them."""

from importlib import import_module

TESTED_VERSIONS = ("0.32",)


def is_tested() -> bool:
    """Return whether the installed vLLM is a tested one."""
    return installed_version().rpartition(".")[0] in TESTED_VERSIONS


def installed_version() -> str:
    """Return the version of the installed vLLM, without its build label: "0.32.0"."""
    # Distributions for some hardware have other names, so that the module has to be asked.
    version: str = import_module("vllm.version").__version__
    return version.partition("+")[0]


def require_tested(allow_untested: bool) -> None:
    """Refuse other versions than the tested ones.

    Raises:
        ValueError: The installed version is another one, and `allow_untested` is not set.
    """
    if not allow_untested and not is_tested():
        raise ValueError(
            f"divprune was tested with vLLM {', '.join(TESTED_VERSIONS)}, this is {installed_version()}; install "
            'that, or set "allow_untested_vllm": true in the "divprune" entry of hf_overrides and check the answers'
        )
