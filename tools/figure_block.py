"""The most telling figures, for README.md."""

from pathlib import Path

from divprune.figures import FIGURES

ROOT = Path(__file__).parent.parent
FOLDER = "docs/figures"
PREFERRED = ("kept-on-image", "score-flops", "prefill", "max-min-histogram", "selection-time")
NUM_SHOWN = 3


def figure_block() -> str:
    """The first of the preferred figures that have been drawn."""
    titles = {spec.name: spec.title for spec in FIGURES}
    paths = {name: f"{FOLDER}/{name}.png" for name in PREFERRED}
    there = [name for name, path in paths.items() if (ROOT / path).is_file()]
    return "\n\n".join(f"![{titles[name]}]({paths[name]})" for name in there[:NUM_SHOWN])
