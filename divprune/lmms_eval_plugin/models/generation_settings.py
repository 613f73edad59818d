"""How a task wants its answers generated, in transformers' words."""

from collections.abc import Mapping
from typing import Any


def generate_options(settings: Mapping[str, Any], max_new_tokens: int) -> dict[str, Any]:
    """Return the options of `generate`. What it does not know, such as `image_aspect_ratio`, is left out.

    Args:
        settings: a task's `generation_kwargs`.
        max_new_tokens: where the task does not say.
    """
    temperature = float(settings.get("temperature") or 0)
    samples = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    options: dict[str, Any] = {
        "do_sample": samples,
        "num_beams": int(settings.get("num_beams") or 1),
        "max_new_tokens": int(settings.get("max_new_tokens") or max_new_tokens),
    }
    if samples:
        options["temperature"] = temperature
        options |= {name: settings[name] for name in ("top_p", "top_k") if settings.get(name) is not None}
    else:
        # A checkpoint's own settings of sampling would only bring warnings.
        options |= {"temperature": None, "top_p": None, "top_k": None}
    return options


def cut_at(text: str, settings: Mapping[str, Any]) -> str:
    """Return an answer up to the first of the strings that end it."""
    until = settings.get("until") or []
    for end in [until] if isinstance(until, str) else until:
        if end:
            text = text.split(end)[0]
    return text.strip()
