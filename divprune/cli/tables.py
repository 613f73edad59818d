"""Lay out tables for the terminal; every one fits 80 columns."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from divprune.errors import printable


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a plain table of texts, first column in bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, style="bold" if index == 0 else "", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table


def number_table(
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    sections: Iterable[tuple[str, Iterable[Sequence[str]]]] | None = None,
    *,
    folds: bool = False,
) -> Table:
    """Return a table of words and right-aligned numbers, close together.

    Args:
        words: the first columns.
        numbers: the others.
        rows: the lines.
        sections: more lines, each group under its title.
        folds: whether numbers may go on in the next line.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=sections is None)
    for index, word in enumerate(words):
        table.add_column(word, style="" if index else "bold", overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", overflow="fold", no_wrap=not folds)
    for row in rows:
        table.add_row(*row)
    for title, lines in sections or ():
        table.add_row(Text(printable(title), style="bold underline"))
        for line in lines:
            table.add_row(*line)
        table.add_section()
    return table
