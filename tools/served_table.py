"""The table of docs/serving.md that says which models are served with which methods, and why not with others."""

from divprune.methods import available_methods, get_method
from divprune.vllm_plugin.families import SERVED_FAMILIES
from divprune.vllm_plugin.refusals import served_with, why_refused
from tools.markdown import markdown_table

SUFFIX = "ForConditionalGeneration"


def served_table() -> str:
    """Methods that are served alike, one row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for info in available_methods():
        groups.setdefault(_served(info.name, info.acts), []).append(f"`{info.name}`")
    rows = [(", ".join(names), *cells) for cells, names in groups.items()]
    return markdown_table(("methods", "images", "videos"), rows, numbers_from=3)


def _served(name: str, acts: str) -> tuple[str, str]:
    """Return the families whose images and videos are served with a method; why none is."""
    if acts.startswith("inside"):
        return f"none: it {acts.replace('inside', 'acts inside')}", ""
    method = get_method(name)
    served = served_with(method)
    if not served:
        return f"none: it {why_refused(method, SERVED_FAMILIES[0], 'image').partition(',')[0]}", ""
    return _families("image", served.get("image", ())), _families("video", served.get("video", ()))


def _families(kind: str, served: tuple[str, ...]) -> str:
    every = [family.architecture for family in SERVED_FAMILIES if kind in family.modalities]
    if len(served) == len(every):
        return "all"
    return ", ".join(name.removesuffix(SUFFIX) for name in served)
