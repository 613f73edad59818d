"""What is left of the time until the first token where the vision encoder reads fewer patches, and for what."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from divprune.figures import prefill
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(*records: Record) -> "Figure":
    """Draw a panel a record and a bar a setting, made up of its parts."""
    return prefill.draw(*(replace(record, rows=[_named(row) for row in record.rows]) for record in records))


def caption(*records: Record) -> str:
    """Say what is drawn."""
    shapes = " and ".join(record.config["model"] for record in records)
    return (
        "Time to the first token of the unpruned model, of pruned ones, and of pruned ones whose vision encoder reads "
        f"fewer patches: in the language model, in the selection, and before it. Shapes of {shapes}, random weights: "
        "what it costs is real, what it says is not."
    )


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose name is short: the option instead of method and option."""
    _, _, option = row["method"].partition(", ")
    return {**row, "method": f"+ {option.replace(',schedule=', ', ')}" if option else row["method"]}
