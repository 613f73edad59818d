"""A page for each built-in method, docs/methods/NAME.md: written by `make readme` from the package and the records."""

import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

from divprune.fidelity import MARKS
from divprune.huggingface.families.registry import FAMILIES
from divprune.huggingface.families.vision_towers import TOWERS
from divprune.methods import ItemContext, Method, MethodInfo, available_methods, bibliography
from divprune.methods.docstrings import docstring_parts, paragraphs
from divprune.methods.item_context import QUERY_NEEDS, Need
from divprune.methods.registry import built_in, get_method
from divprune.methods.vision_inputs import VISION_NEEDS
from divprune.outputs import write_whole
from divprune.records import Record, load_record
from divprune.vllm_plugin.families import SERVED_FAMILIES
from divprune.vllm_plugin.refusals import served_with, why_refused
from tools.kept_drawings import kept_section, write_drawings
from tools.markdown import markdown_table
from tools.scene_tables import method_table
from tools.wins_and_losses import wins_and_losses

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "methods"
INDEX = "README.md"

FIDELITIES = {
    "exact": "index for index what the authors' public code keeps, on every input tried.",
    "documented": "it deviates from its paper, as said below.",
    "stand-in": "something that cannot be had is replaced by something else, as said below.",
    "unverified": "written from the paper, and not compared with its authors' code since the rule was last changed.",
}
COUNTS = {
    "exact": "`keep_ratio` or `num_keep`, exactly.",
    "at_most": "`keep_ratio` or `num_keep` at most.",
    "adaptive": "found for each image or video, unless `keep_ratio` or `num_keep` is given.",
    "schedule": "said by the method for each layer; `keep_ratio` and `num_keep` are left out.",
}
EQUAL_LEGEND = (
    "*equal*: what is made equal between methods, tokens kept or FLOPs of the prefill; empty where the method itself "
    "says how much it keeps, nothing is pruned or nothing is shown."
)
_INDEX_LEAD = """\
[Which one do I take?](../choose.md#which-method) [How near is each to its paper?](../fidelity.md) By name and
parameters, as in `random:seed=3`, they go to `prune(model, ...)` and to `--method` of every command, and so does
[one of your own](../recipes/own-method.md)."""
_NOTE = "<!-- Written by `make readme` from the method's class and the records; do not edit. -->"


def pages() -> dict[str, str]:
    """Every page by file name, the index among them."""
    infos = {info.name: info for info in available_methods()}
    own = [(method, infos[method.name]) for method in built_in()]
    found = {f"{info.name}.md": _page(method, info) for method, info in own}
    return {INDEX: _index([info for _, info in own]), **found}


def write_pages() -> None:
    """Write the pages that have changed, and remove those of methods that are gone."""
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()
    for name, text in wanted.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
            print(f"docs/methods/{name} rewritten")
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
            print(f"docs/methods/{path.name} removed")
    write_drawings()


def _index(infos: Sequence[MethodInfo]) -> str:
    rows = [
        (
            f"[`{info.name}`]({info.name}.md)",
            as_text(info.summary),
            info.acts,
            ", ".join(need.replace("_", " ") for need in info.needs),
            "yes" if info.merges else "",
            info.fidelity,
            "a control" if info.paper is None else f"[{info.paper.year}]({info.paper.url})",
        )
        for info in infos
    ]
    header = ("method", "keeps", "acts", "reads besides the tokens", "merges", "fidelity", "paper")
    return f"{_NOTE}\n# Methods\n\n{_INDEX_LEAD}\n\n{markdown_table(header, rows, numbers_from=len(header))}\n"


def _page(method: type[Method], info: MethodInfo) -> str:
    sections = {
        f"`{info.name}`": _idea(method),
        "What it keeps": kept_section(method),
        "Parameters": _parameters(info),
        "Fidelity": _fidelity(method),
        "When it wins and loses here": wins_and_losses(method.name, sorted(method.modalities)),
        "What it reads": _needs(method),
        "Where it works": _where(method),
        "In the records": _records(method),
        "Paper": _paper(info),
    }
    (title, idea), *others = sections.items()
    parts = [f"{_NOTE}\n# {title}", idea, *(f"## {heading}\n{text}" for heading, text in others)]
    return "\n\n".join(parts) + "\n"


def as_text(text: str) -> str:
    """Words of a docstring as Markdown that reads the same; code in backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if place % 2 else re.sub(r"([_*<\[|])", r"\\\1", part) for place, part in enumerate(parts))


def _idea(method: type[Method]) -> str:
    # Addresses stay as they are: Markdown links them by itself.
    return "\n\n".join(re.sub(r"https\S+", lambda found: f"<{found[0]}>", as_text(each)) for each in paragraphs(method))


def _parameters(info: MethodInfo) -> str:
    if not info.parameters:
        return "None."
    rows = [
        (f"`{name}`", f"`{value!r}`", as_text(info.meanings.get(name, ""))) for name, value in info.parameters.items()
    ]
    return markdown_table(("parameter", "default", "meaning"), rows, numbers_from=3)


def _fidelity(method: type[Method]) -> str:
    if method.paper is None:
        return "A control, of no paper."
    mark = f" ({as_text(MARKS[method.fidelity])} in tables and figures)" if MARKS[method.fidelity] else ""
    return " ".join(
        part for part in (f"**{method.fidelity}**{mark}: {FIDELITIES[method.fidelity]}", deviation(method)) if part
    )


def deviation(method: type[Method]) -> str:
    """What a method's docstring says of its deviations and stand-ins, as Markdown; empty if there are none."""
    found = re.search(r"(?:Deviation|Stand-in).*?(?=\n\n|\Z)", cleandoc(method.__doc__ or ""), flags=re.S)
    return as_text(" ".join(found[0].split())) if found else ""


def _needs(method: type[Method]) -> str:
    meanings = docstring_parts(ItemContext)[1]
    stages: list[tuple[str, frozenset[Need]]] = [
        ("", method.needs), ("at `layer`", method.layer_needs - method.needs), ("where it is known", method.reads)
    ]  # fmt: skip
    rows = [(f"`{need}`", when, as_text(meanings[need])) for when, needs in stages for need in sorted(needs)]
    if not rows:
        return "Nothing but the visual tokens."
    lines = [markdown_table(("need", "when", "what it is"), rows, numbers_from=3)]
    if method.needs & {"vision_attention", "vision_keys"}:
        lines.append(f"Vision layer {method.vision_layer} (negative numbers count from the last).")
    lines.append(
        "The question has a say." if QUERY_NEEDS & (method.needs | method.layer_needs) else "The question has no say."
    )
    return "\n\n".join(lines)


def _where(method: type[Method]) -> str:
    media = " and ".join(f"{modality}s" for modality in sorted(method.modalities))
    lines = [
        f"- on {media}, {method.acts}; how many tokens stay: {COUNTS[method.count]}",
        f"- Hugging Face: {_families(method)}",
        "- lmms-eval: with `--backend hf` wherever Hugging Face does, with `--backend vllm` wherever vLLM does",
        f"- vLLM: {_served(method)}",
    ]
    return "\n".join(lines)


def _families(method: type[Method]) -> str:
    able = [family.name for family in FAMILIES if method.modalities & set(family.modalities)]
    if method.needs & VISION_NEEDS:
        able = [name for name in able if name in TOWERS]
        return f"families whose vision encoder is known: {_listed(able)}"
    of_all = f"{len(able)} of {len(FAMILIES)} families"
    if "inside" in method.acts:
        return f"{of_all}, of those the ones [whose layers can lose tokens](../support.md)"
    places = method.needs & {"grid", "pieces"}
    return f"{of_all}{', where the places of the tokens are known' if places else ''}"


def _served(method: type[Method]) -> str:
    try:
        instance = get_method(method.name)
    except ValueError:
        return "not, it acts inside the LLM"
    able = served_with(instance)
    if able:
        return _listed([f"{name} ({modality}s)" for modality, names in able.items() for name in names])
    kind = sorted(method.modalities)[0]
    family = next(family for family in SERVED_FAMILIES if kind in family.modalities)
    return f"not: it {as_text(why_refused(instance, family, kind))}"


def _listed(names: Sequence[str]) -> str:
    parted = (name.partition(" ") for name in names)
    return ", ".join(f"`{name}` {rest}".rstrip() for name, _, rest in parted)


def _records(method: type[Method]) -> str:
    """What records of the scenes suite say of a method; one of images says nothing of a method for videos."""
    parts = []
    for path in sorted((ROOT / "results").glob("eval-scenes*.json"), key=lambda path: path.stem):
        record = load_record(path)
        rows = [row for row in record.rows if row["method"].partition(":")[0] == method.name]
        if any(row["refusal"] is None for row in rows) or (rows and "image" in method.modalities):
            parts.append(_scenes(record, rows))
    return "\n\n".join(parts) or "Not measured yet."


def _folded(summary: str, text: str) -> str:
    """Text behind a summary that opens it, on the site as on GitHub."""
    return f'<details markdown="1">\n<summary>{summary}</summary>\n\n{text}\n\n</details>'


def _scenes(record: Record, rows: Sequence[Mapping[str, Any]]) -> str:
    answered = [row for row in rows if row["refusal"] is None]
    refusals = dict.fromkeys(row["refusal"] for row in rows if row["refusal"] is not None)
    numbered = f"Positions are {record.config['positions']}."
    lines = [f"{record.config['notice']} {numbered} [All methods](../results.md)."]
    lines += [method_table(record, answered), EQUAL_LEGEND] if answered else []
    lines += ["\n".join(f"- refused: {as_text(reason)}" for reason in refusals)] if refusals else []
    return _folded(f"{record.name}.json, {record.config['positions']} positions", "\n\n".join(lines))


def _paper(info: MethodInfo) -> str:
    if info.paper is None:
        return "None: a control."
    paper = info.paper
    title = as_text(paper.title) if paper.url is None else f"[{as_text(paper.title)}]({paper.url})"
    return f"{title}. {as_text(paper.citation)}.\n\n```bibtex\n{bibliography([paper])}\n```"
