"""Whether vLLM is installed, found out without importing it."""

from importlib.util import find_spec

from divprune.errors import MissingDependencyError


def has_vllm() -> bool:
    """Tell whether vLLM is installed, under whatever name of a distribution."""
    return find_spec("vllm") is not None


def require_vllm() -> None:
    """Check that vLLM is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    if not has_vllm():
        raise MissingDependencyError("serving needs vLLM, which is not installed: pip install 'divprune[vllm]'")
