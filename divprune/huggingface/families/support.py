"""How each way of calling ended for each family: what the parity suite found, read from support.json.

`make support` runs the suite (tests/parity) and writes the file. Reasons are the words of the errors that were raised.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SUPPORT_FILE = Path(__file__).parent / "support.json"

Outcome = Literal["ok", "refused", "n/a"]


@dataclass(frozen=True)
class Cell:
    """How one way of calling ended for one family.

    Attributes:
        outcome: "ok" equals the hand-made reference, "refused" raises our error, "n/a" cannot be asked of this family.
        reason: why not "ok".
    """

    outcome: Outcome
    reason: str = ""

    def to_json(self) -> Any:
        """`"ok"`, or the reason under the outcome's name."""
        return {self.outcome: self.reason} if self.reason else self.outcome

    @classmethod
    def from_json(cls, value: Any) -> "Cell":
        """Return the inverse of `to_json`."""
        return cls(*next(iter(value.items()))) if isinstance(value, dict) else cls(value)


@dataclass(frozen=True)
class FamilySupport:
    """A row of the table.

    Attributes:
        name: the model that was tried: the model's type, with a suffix for a second model of the type.
        model_type: `model.config.model_type`.
        kinds: the media it takes.
        example: a public checkpoint of the type.
        positions: the default of `prune(positions=...)`, "original" or "compact".
        cells: by the name of the mode.
        cells_of_older: by the older version of transformers, those that ended differently there.
    """

    name: str
    model_type: str
    kinds: tuple[str, ...]
    example: str
    positions: str
    cells: dict[str, Cell]
    cells_of_older: dict[str, dict[str, Cell]] = field(default_factory=dict)


@dataclass(frozen=True)
class Support:
    """The whole table.

    Attributes:
        newest: version of transformers that the cells were found with.
        older: the older versions that the suite ran with, the oldest supported one first.
        groups: title of a group of modes -> their names; together all columns, in order.
        families: the rows.
    """

    newest: str
    older: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    families: tuple[FamilySupport, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads again."""
        return {
            "transformers": self.newest,
            "older_transformers": list(self.older),
            "groups": {title: list(names) for title, names in self.groups.items()},
            "families": [_family_to_json(family) for family in self.families],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Support":
        """Return the inverse of `to_json`."""
        return cls(
            newest=value["transformers"],
            older=tuple(value["older_transformers"]),
            groups={title: tuple(names) for title, names in value["groups"].items()},
            families=tuple(_family_from_json(family) for family in value["families"]),
        )


def load_support(path: Path = SUPPORT_FILE) -> Support:
    """Return the table as the parity suite wrote it."""
    return Support.from_json(json.loads(path.read_text(encoding="utf-8")))


def _family_to_json(family: FamilySupport) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": family.name,
        "model_type": family.model_type,
        "kinds": list(family.kinds),
        "example": family.example,
        "positions": family.positions,
        "cells": _cells_to_json(family.cells),
    }
    if family.cells_of_older:
        value["cells_of_older"] = {version: _cells_to_json(cells) for version, cells in family.cells_of_older.items()}
    return value


def _family_from_json(value: dict[str, Any]) -> FamilySupport:
    return FamilySupport(
        name=value["name"],
        model_type=value["model_type"],
        kinds=tuple(value["kinds"]),
        example=value["example"],
        positions=value["positions"],
        cells=_cells_from_json(value["cells"]),
        cells_of_older={version: _cells_from_json(cells) for version, cells in value.get("cells_of_older", {}).items()},
    )


def _cells_to_json(cells: dict[str, Cell]) -> dict[str, Any]:
    return {mode: cell.to_json() for mode, cell in cells.items()}


def _cells_from_json(value: dict[str, Any]) -> dict[str, Cell]:
    return {mode: Cell.from_json(cell) for mode, cell in value.items()}


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
