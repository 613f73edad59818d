"""The table of what is supported, as texts: one table a group of modes, with the reasons as numbered notes."""

from collections.abc import Iterator
from dataclasses import dataclass

from divprune.huggingface.families.support import Cell, FamilySupport, Support


@dataclass(frozen=True)
class SupportTable:
    """One group of modes.

    Attributes:
        title: of the group.
        modes: the columns.
        rows: for each family its name and the texts of its cells: "ok", "refused (1)" or "n/a (2)".
        notes: what the numbers in brackets stand for, from 1 on.
    """

    title: str
    modes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


def support_tables(support: Support) -> Iterator[SupportTable]:
    """One table for each group of modes, with a row for every family."""
    for title, modes in support.groups.items():
        notes: list[str] = []
        rows = tuple((family.name, tuple(_text(family, mode, notes) for mode in modes)) for family in support.families)
        yield SupportTable(title, modes, rows, tuple(notes))


def _text(family: FamilySupport, mode: str, notes: list[str]) -> str:
    cell = family.cells[mode]
    numbers = [_number(notes, cell.reason)] if cell.reason else []
    for version, cells in family.cells_of_older.items():
        if mode in cells:
            numbers.append(_number(notes, f"with transformers {version}: {_in_words(cells[mode])}"))
    return f"{cell.outcome} ({', '.join(map(str, numbers))})" if numbers else cell.outcome


def _in_words(cell: Cell) -> str:
    return f"{cell.outcome}, {cell.reason}" if cell.reason else cell.outcome


def _number(notes: list[str], note: str) -> int:
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1
