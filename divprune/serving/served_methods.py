"""Which models are served with a method, for `divprune methods`."""

import json
from collections.abc import Sequence
from pathlib import Path

from divprune.methods import get_method

SERVED_FILE = Path(__file__).parent / "served.json"
"""Written by `make readme` for the built-in methods: to find it out, each selects once, which needs torch."""

Served = dict[str, list[str]]


def architectures_served(spec: str) -> Served:
    """Return the architectures that are served with a method: {"image": [...], "video": [...]}.

    Args:
        spec: As for `get_method`. A method that cannot do without a parameter is served with none but by that.
    """
    recorded: dict[str, Served] = json.loads(SERVED_FILE.read_text(encoding="utf-8"))
    return recorded[spec] if spec in recorded else found_served(spec)


def found_served(spec: str) -> Served:
    """Find out the same by asking the method."""
    from divprune.vllm_plugin.refusals import served_with

    try:
        method = get_method(spec)
    except ValueError:
        return {}
    return {modality: list(names) for modality, names in served_with(method).items()}


def served_text(names: Sequence[str]) -> str:
    """Return what SERVED_FILE holds of some methods."""
    return json.dumps({name: found_served(name) for name in names}, indent=1) + "\n"
