"""Write docs/support.md and docs/models.md from huggingface/families/support.json: `python -m tools.render_support`.

`make support` runs the parity suite first, which writes that file. Nothing on the pages is typed by hand.
"""

from collections.abc import Iterable
from pathlib import Path

from divprune.huggingface.families.support import Support, SupportTable, load_support, support_tables
from divprune.outputs import write_whole
from tools.models_page import models_page
from tools.render_results import markdown_table

DOCS = Path(__file__).parent.parent / "docs"
PAGE, MODELS = DOCS / "support.md", DOCS / "models.md"

HEAD = """\
# What is supported

This page is written by `make support` from what the parity suite (`tests/parity`) finds; do not edit it. Each cell is a
test on a tiny random model of the family, in float64 with transformers {newest}. The suite also ran with {older}; a
cell that ends otherwise there has a note.

- **ok**: logits, scores or loss equal a reference made by hand, which shares no code with the package, to 1e-9 at every
  step of an answer of nine tokens, and differ from it by more than 1e-3 if the first tokens are kept instead.
- **refused**: the call raises an error, which the note quotes; the model is usable afterwards.
- **n/a**: there is nothing to prune, or transformers fails or gives other numbers without pruning too.
"""


def page(support: Support) -> str:
    """The whole page."""
    parts = [HEAD.format(newest=support.newest, older=" and ".join(support.older)), _families(support)]
    parts += [_section(table) for table in support_tables(support)]
    return "\n".join(parts)


def _families(support: Support) -> str:
    header = ("family", "`model_type`", "takes", "for example")
    rows = [
        (
            f"`{family.name}`",
            f"`{family.model_type}`",
            " and ".join(f"{kind}s" for kind in family.kinds),
            family.example,
        )
        for family in support.families
    ]
    return f"## Families\n{markdown_table(header, rows, numbers_from=len(header))}\n"


def _and(kinds: Iterable[str]) -> str:
    return " and ".join(f"{kind}s" for kind in kinds)


def _section(table: SupportTable) -> str:
    rows = [(f"`{name}`", *cells) for name, cells in table.rows]
    lines = [f"## {table.title}", markdown_table(("family", *table.modes), rows, numbers_from=len(table.modes) + 1), ""]
    lines += [f"{number}. {_as_text(note)}" for number, note in enumerate(table.notes, start=1)]
    return "\n".join(lines) + ("\n" if table.notes else "")


def _as_text(note: str) -> str:
    """A message as Markdown that reads the same."""
    return note.replace("_", r"\_").replace("*", r"\*").replace("<", r"\<")


def main() -> None:
    """Rewrite the pages that have changed."""
    support = load_support()
    for path, text in ((PAGE, page(support)), (MODELS, models_page(support))):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
            print(f"{path.name} rewritten")


if __name__ == "__main__":
    main()
