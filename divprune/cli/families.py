"""`divprune families`: list the model families that can be pruned."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divprune.cli.console import Console, command
from divprune.cli.shared_options import Debug, Json
from divprune.cli.tables import listing
from divprune.errors import ArgumentError

if TYPE_CHECKING:
    from divprune.huggingface.families.support import FamilySupport, Support


def families(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="WORD", help="Only those with this in their name or example, such as qwen.", show_default=False
        ),
    ] = None,
    modes: Annotated[bool, typer.Option("--modes", help="Also show which ways of calling them work.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Also list what cannot be pruned, and why.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the model families that can be pruned, and which ways of calling them."""
    with command(json, debug) as console:
        from divprune.huggingface.families.support import load_support

        support = load_support()
        chosen = support if name is None else replace(support, families=_matching(support.families, name))
        rows = [(family.name, "+".join(family.kinds), family.example) for family in chosen.families]
        console.show(listing(("family", "takes", "for example"), rows))
        if modes or len(chosen.families) == 1:
            _show_modes(console, chosen)
        else:
            console.advise("--modes, or the name of one, shows which ways of calling it work.")
        result: dict[str, Any] = {
            "rows": [asdict(family) | {"kinds": list(family.kinds)} for family in chosen.families]
        }
        if refused:
            with console.working("reading transformers"):
                from divprune.huggingface.families.unsupported import refused_classes

                classes = refused_classes()
            console.show(listing(("refused", "because"), [(each.name, each.reason) for each in classes]))
            result["refused"] = [asdict(each) for each in classes]
        console.result(result)


def _matching(rows: "Sequence[FamilySupport]", word: str) -> "tuple[FamilySupport, ...]":
    """Return the rows that a word names, or is part of."""
    exact = tuple(row for row in rows if row.name == word)
    found = exact or tuple(row for row in rows if any(word.lower() in text.lower() for text in (row.name, row.example)))
    if not found:
        close = get_close_matches(word.lower(), [row.name for row in rows], n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(f"no family among {len(rows)} has {word!r} in its name or example{guess}")
    return found


def _show_modes(console: Console, support: "Support") -> None:
    """Print how each way of calling ended: what works in one table a group, or of a single family all in one."""
    from divprune.huggingface.families.support import support_tables

    console.show("", f"Ways of calling, with transformers {support.newest}")
    if len(support.families) == 1:
        console.show(listing(("way", "works", "otherwise"), _ways(support)))
        console.show(f"positions: {support.families[0].positions} by default")
        return
    for table in support_tables(support):
        console.show(table.title, listing(("family", *table.modes), [(name, *cells) for name, cells in table.rows]))
        console.show(*(f"({number}) {note}" for number, note in enumerate(table.notes, start=1)))


def _ways(support: "Support") -> Iterator[tuple[str, str, str]]:
    family = support.families[0]
    for title, names in support.groups.items():
        for name in names:
            cell = family.cells[name]
            yield f"{title}: {name}", cell.outcome, cell.reason
