"""Tables: drawn for a terminal, where they fit 80 columns, and one tab-separated line a row for other programs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from divprune.errors import printable

GROUP_COLUMN = "section"
"""The column of other programs that names the group of a row."""


@dataclass(frozen=True)
class Sheet:
    """A table in both forms.

    Attributes:
        drawn: for a terminal.
        lines: cells of the header and of each row, for other programs.
    """

    drawn: Table
    lines: Sequence[Sequence[str]]

    def tab_separated(self) -> Iterator[str]:
        """Return the header and the rows, in one line each: no cell holds a tab or an end of line."""
        for line in self.lines:
            yield "\t".join(" ".join(printable(cell).split()) for cell in line)


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut_off: bool = False) -> Sheet:
    """Return a plain table of texts, first column in bold.

    Args:
        columns: their names; none for two columns that need no names.
        rows: their cells.
        cut_off: whether a terminal shows one line a row, however long the last cell is; others go on in further lines.
    """
    lines = [tuple(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_header=bool(columns))
    for index, column in enumerate(columns or ("", "")):
        style = "" if index else "bold"
        if not cut_off:
            table.add_column(column, style=style, overflow="fold", no_wrap=index == 0)
        elif index < len(columns) - 1:
            width = max(len(line[index]) for line in (columns, *lines))
            table.add_column(column, style=style, min_width=width, no_wrap=True)
        else:
            table.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in lines:
        table.add_row(*row)
    return Sheet(table, (tuple(columns), *lines) if columns else lines)


def number_table(
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    sections: Iterable[tuple[str, Iterable[Sequence[str]]]] | None = None,
    *,
    folds: bool = False,
) -> Sheet:
    """Return a table of words and right-aligned numbers, close together.

    Args:
        words: the first columns.
        numbers: the others.
        rows: the lines.
        sections: more lines, each group under its title.
        folds: whether numbers may go on in the next line.
    """
    lines, groups = [tuple(row) for row in rows], [(title, [*map(tuple, group)]) for title, group in sections or ()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=sections is None)
    for index, word in enumerate(words):
        table.add_column(word, style="" if index else "bold", overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", overflow="fold", no_wrap=not folds)
    for row in lines:
        table.add_row(*row)
    for title, group in groups:
        table.add_row(Text(printable(title), style="bold underline"))
        for row in group:
            table.add_row(*row)
        table.add_section()
    header = (*words, *numbers)
    if sections is None:
        return Sheet(table, (header, *lines))
    return Sheet(table, ((GROUP_COLUMN, *header), *((title, *row) for title, group in groups for row in group)))
