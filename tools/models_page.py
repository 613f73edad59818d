"""Write docs/models.md: every model family with the ways of calling that work, filtered by docs/assets/site.js.

The words and numbers are those of docs/support.md; HTML, since Markdown's tables carry nothing that a filter reads.
"""

from html import escape

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from divprune.huggingface.families.support import FamilySupport, Support
from divprune.huggingface.families.vision_towers import TOWERS
from divprune.vllm_plugin.families import SERVED_FAMILIES

HEAD = """\
<!-- Written by `make support` from what the parity suite finds; do not edit. -->
# Models

{number} models of {types} families were tried, in every way of calling, against a reference made by hand
(transformers {newest}). Type a part of a name (`qwen`, `llava-hf`), or tick what must work. "5 of 6" counts the ways of
calling that can be asked of the family; point at a number to read which do not work, or see
[What is supported](support.md), which quotes the reason of each. A model that is not here is refused by name:
`divprune families` lists what this installation knows.
[CONTRIBUTING](../CONTRIBUTING.md#add-a-model-family-in-six-steps) shows how to add one.

*Reads the encoder*: methods that read the vision encoder's attention or keys (`visionzip`, `cls-attention`, ...) work.
*vLLM*: what of it [is served pruned](serving.md#what-is-served).
"""


def models_page(support: Support) -> str:
    """The whole page."""
    head = HEAD.format(
        number=len(support.families),
        types=len({family.model_type for family in support.families}),
        newest=support.newest,
    )
    titles = ("model", "takes", "for example", *support.groups, "reads the encoder", "vLLM")
    rows = "\n".join(_row(support, family) for family in support.families)
    header = "".join(f"<th>{title}</th>" for title in titles)
    return f"""{head}
{_filter(support)}
<table data-filtered>
<thead><tr>{header}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
"""


def _filter(support: Support) -> str:
    """What a reader ticks; site.js shows it, without a script there is nothing to tick."""
    groups = "".join(
        f"<fieldset><legend>{title}</legend>{''.join(map(_tick, modes))}</fieldset>"
        for title, modes in support.groups.items()
    )
    return f'<details class="modes" hidden><summary>Ways of calling that must work</summary>{groups}</details>'


def _tick(mode: str) -> str:
    return f'<label><input type="checkbox" value="{escape(mode)}"> {escape(mode)}</label>'


def _row(support: Support, family: FamilySupport) -> str:
    working = [mode for modes in support.groups.values() for mode in modes if family.cells[mode].outcome == "ok"]
    cells = (
        f"<code>{family.name}</code>",
        ", ".join(f"{kind}s" for kind in family.kinds),
        f"<code>{family.example}</code>",
        *(_counted(family, modes) for modes in support.groups.values()),
        "yes" if family.model_type in TOWERS else "",
        _served(family),
    )
    filled = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr data-works="{escape("|".join(working))}">{filled}</tr>'


def _counted(family: FamilySupport, modes: tuple[str, ...]) -> str:
    """How many of some modes work, of those that can be asked; the others in the title."""
    asked = [mode for mode in modes if family.cells[mode].outcome != "n/a"]
    refused = [mode for mode in asked if family.cells[mode].outcome == "refused"]
    if not asked:
        return "n/a"
    text = f"{len(asked) - len(refused)} of {len(asked)}"
    return f'<abbr title="refused: {escape(", ".join(refused))}">{text}</abbr>' if refused else text


def _served(family: FamilySupport) -> str:
    architecture = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(family.model_type)
    served = next((each for each in SERVED_FAMILIES if each.architecture == architecture), None)
    return "" if served is None else ", ".join(f"{modality}s" for modality in served.modalities)
