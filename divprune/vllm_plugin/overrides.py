"""hf_overrides for a model: the pruned architecture that fits it, and the settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divprune.checkpoint_checks import read_json
from divprune.checkpoint_places import checkpoint_folder, hub_config
from divprune.config import Positions
from divprune.errors import CheckpointError, UnsupportedModelError
from divprune.vllm_plugin.families import SERVED_FAMILIES, served_family
from divprune.vllm_plugin.settings import PruningSettings


def pruned_overrides(
    model: str | Path | Mapping[str, Any],
    *,
    keep_ratio: float | None = None,
    num_keep: int | None = None,
    method: str = "divprune",
    allow_request_ratio: bool = False,
    allow_untested_vllm: bool = False,
    positions: Positions | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Return what `vllm.LLM(hf_overrides=...)` or `--hf-overrides` takes to serve a model pruned.

    Args:
        model: A checkpoint's folder, its name on the Hugging Face hub, or the contents of its config.json.
        keep_ratio: Fraction of each image's or video's visual tokens that is kept, in (0, 1].
        num_keep: Or their number. Give exactly one of the two.
        method: A method and its parameters: "divprune", "random:seed=3".
        allow_request_ratio: Whether requests may ask for less by their mm_processor_kwargs.
        allow_untested_vllm: Whether to say nothing of a vLLM outside the tested range.
        positions: "original" lets kept tokens keep their position numbers, "compact" numbers pruned prompts anew; None
            is "original" wherever the model can.
        revision: Branch, tag or commit on the hub.

    Returns:
        `{"architectures": [...], "divprune": {...}}`, which is JSON.

    Raises:
        CheckpointError: There is no such model, or its config.json cannot be read.
        UnsupportedModelError: The model's architecture is not served pruned.
        ValueError: A value is out of range, or no method has this name.
        TypeError: A value has the wrong type.
    """
    settings = PruningSettings(keep_ratio, num_keep, method, allow_request_ratio, allow_untested_vllm, positions)
    names = _config(model, revision).get("architectures") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise CheckpointError(f"architectures of a config.json must be a list of names, got {names!r}")
    family = next(filter(None, map(served_family, names)), None)
    if family is None:
        served = ", ".join(family.architecture for family in SERVED_FAMILIES)
        raise UnsupportedModelError(f"architectures must name one that is served pruned ({served}), got {names}")
    return {"architectures": [family.pruned_architecture], "divprune": settings.overrides()}


def _config(model: str | Path | Mapping[str, Any], revision: str | None) -> Mapping[str, Any]:
    if isinstance(model, Mapping):
        return model
    folder = checkpoint_folder(str(model))
    path = hub_config(str(model), revision) if folder is None else folder / "config.json"
    return read_json(str(model), path)
