"""Which models are served with a method, for `divprune methods`."""

from divprune.methods import get_method
from divprune.vllm_plugin.refusals import served_with


def architectures_served(spec: str) -> dict[str, list[str]]:
    """Return the architectures that are served with a method: {"image": [...], "video": [...]}.

    Args:
        spec: As for `get_method`. A method that cannot do without a parameter is served with none but by that.
    """
    try:
        method = get_method(spec)
    except ValueError:
        return {}
    return {modality: list(names) for modality, names in served_with(method).items()}
