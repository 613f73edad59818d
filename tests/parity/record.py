"""The recorded table: what a cell is expected to be, and how the table is written."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import transformers
from packaging.requirements import Requirement
from packaging.version import Version

from divprune.huggingface import supported_families
from divprune.huggingface.support import SUPPORT_FILE, Cell, FamilySupport, Support, load_support
from tests.huggingface.tiny_models import CASES
from tests.parity.modes import MODES

Found = dict[str, dict[str, Cell]]
"""Case -> mode -> cell."""

REMEDY = "run `make support` and commit what it writes"


def oldest_transformers() -> str:
    """The lower bound in pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bound = next(each for each in map(Requirement, project["dependencies"]) if each.name == "transformers")
    return next(iter(bound.specifier)).version


def is_oldest() -> bool:
    """Whether this is the oldest supported transformers, apart from patches."""
    return Version(transformers.__version__).release[:2] == Version(oldest_transformers()).release[:2]


def recorded_cell(name: str, mode: str) -> Cell | None:
    """What the table says of this version of transformers."""
    family = next((family for family in load_support().families if family.name == name), None)
    if family is None:
        return None
    older = family.cells_of_oldest if is_oldest() else {}
    return older.get(mode, family.cells.get(mode))


def write_support(found: Found) -> None:
    """Writes the table: all cells on a newer transformers, those that differ on the oldest."""
    support = _with_oldest(load_support(), found) if is_oldest() else _new_support(found)
    SUPPORT_FILE.write_text(json.dumps(support.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _new_support(found: Found) -> Support:
    groups: dict[str, tuple[str, ...]] = {}
    for mode in MODES.values():
        groups[mode.group] = (*groups.get(mode.group, ()), mode.name)
    rows = tuple(_new_family(name, found[name]) for name in CASES)
    return Support(transformers.__version__, oldest_transformers(), groups, rows)


def _new_family(name: str, cells: dict[str, Cell]) -> FamilySupport:
    model_type = CASES[name].build().config.model_type
    family = next(family for family in supported_families() if family.name == model_type)
    in_order = {mode: cells[mode] for mode in MODES}
    return FamilySupport(name, model_type, CASES[name].kinds, family.example, in_order)


def _with_oldest(support: Support, found: Found) -> Support:
    rows = []
    for family in support.families:
        cells = found[family.name]
        differing = {mode: cells[mode] for mode, cell in family.cells.items() if cells[mode].outcome != cell.outcome}
        rows.append(replace(family, cells_of_oldest=differing))
    return replace(support, families=tuple(rows))
