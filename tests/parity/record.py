"""The recorded table: what a cell is expected to be, and how the table is written."""

import json
from dataclasses import replace
from pathlib import Path

import transformers
from packaging.version import Version

from divprune.huggingface import supported_families
from divprune.huggingface.families.support import SUPPORT_FILE, Cell, FamilySupport, Support, load_support
from tests.parity.modes import MODES
from tests.support.models.every_family import CASES

Found = dict[str, dict[str, Cell]]
"""Case -> mode -> cell."""

REMEDY = "run `make support` and commit what it writes"


def recorded_cell(name: str, mode: str) -> Cell | None:
    """What the table says of this version of transformers."""
    family = next((family for family in load_support().families if family.name == name), None)
    if family is None:
        return None
    older = family.cells_of_older.get(transformers.__version__, {})
    return older.get(mode, family.cells.get(mode))


def write_support(found: Found, version: str = transformers.__version__, path: Path = SUPPORT_FILE) -> None:
    """Writes the table: all cells on the newest transformers, then those that differ on each older one.

    What the newest gives is written anew, and older versions are forgotten until the suite runs there again.
    """
    recorded = load_support(path)
    is_older = Version(version) < Version(recorded.newest)
    support = _with_older(recorded, found, version) if is_older else _new_support(found, version)
    path.write_text(json.dumps(support.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _new_support(found: Found, version: str) -> Support:
    groups: dict[str, tuple[str, ...]] = {}
    for mode in MODES.values():
        groups[mode.group] = (*groups.get(mode.group, ()), mode.name)
    rows = tuple(_new_family(name, found[name]) for name in CASES)
    return Support(version, (), groups, rows)


def _new_family(name: str, cells: dict[str, Cell]) -> FamilySupport:
    model_type = CASES[name].build().config.model_type
    family = next(family for family in supported_families() if family.name == model_type)
    in_order = {mode: cells[mode] for mode in MODES}
    return FamilySupport(name, model_type, CASES[name].kinds, family.example, family.positions, in_order)


def _with_older(support: Support, found: Found, version: str) -> Support:
    versions = sorted({*support.older, version}, key=Version)
    rows = []
    for family in support.families:
        cells = found[family.name]
        differing = {mode: cells[mode] for mode, cell in family.cells.items() if cells[mode].outcome != cell.outcome}
        known = family.cells_of_older | {version: differing}
        rows.append(replace(family, cells_of_older={each: known[each] for each in versions if known.get(each)}))
    return replace(support, older=tuple(versions), families=tuple(rows))
