"""The page that shows the figures."""

from divprune.figures.book import Drawing
from divprune.figures.sources import COMMANDS

FOLDER = "figures"
"""Where the files lie, beside the page."""
MADE_BY = "Drawn by `divprune figures`"
"""Stands on the page, and tells it from others."""


def gallery_page(drawing: Drawing) -> str:
    """Return the page in Markdown: every figure with its caption, then what could not be drawn and why."""
    parts = ["# Figures", _lead(drawing)]
    for one in drawing.drawn:
        name, title = one.spec.name, one.spec.title
        parts += [
            f"## {title}",
            f"![{title}]({FOLDER}/{name}.png)",
            f"{one.caption}",
            f"`{name}`, from {_files(one.spec.records)}; [SVG]({FOLDER}/{name}.svg).",
        ]
    if drawing.missing:
        parts += ["## Not drawn", "These figures lack a record:"]
        parts.append("\n".join(_missing_line(spec.name, spec.title, names) for spec, names in drawing.missing))
    return "\n\n".join(parts) + "\n"


def _lead(drawing: Drawing) -> str:
    total = len(drawing.drawn) + len(drawing.missing)
    lead = f"{MADE_BY} from the records under `results/`, this page included."
    if not drawing.missing:
        return lead
    return f"{lead} {len(drawing.drawn)} of {total} figures are here; the others wait for their records."


def _files(patterns: tuple[str, ...]) -> str:
    return " and ".join(f"`results/{pattern}.json`" for pattern in patterns)


def _missing_line(name: str, title: str, patterns: tuple[str, ...]) -> str:
    commands = ", ".join(f"`{COMMANDS[pattern]}`" for pattern in patterns)
    return f"- {title} (`{name}`): needs {_files(patterns)}, which {commands} writes."
