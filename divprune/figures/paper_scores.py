"""Mean score against the prefill's cost, ours beside the paper's printed points (its Fig. 1 and 4)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.style import Look, canvas, headings, look, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Row = Mapping[str, Any]

OTHERS = (
    Look("#7f7f00", "<"),
    Look("#8c564b", ">"),
    Look("#5b2c83", "*"),
    Look("#5a5a5a", "p"),
    Look("#a0a0a0", "h"),
    Look("grey", "d"),
)
"""For methods that stand out in no other figure, in the order in which they come."""


def draw(scores: Record) -> "Figure":
    """Draw our points, those of a method joined, and the paper's as open markers of the same colour."""
    rows = [row for row in scores.rows if row["mean"] is not None and row["flop_percent"] is not None]
    printed = [row for row in scores.rows if row["printed_mean"] is not None and row["printed_percent"] is not None]
    looks = _looks([row["series"] for row in (*rows, *printed)])
    figure, (panel,) = canvas(4.6)
    for series, found in looks.items():
        _ours(panel, series, [row for row in rows if row["series"] == series], found)
        _papers(panel, [row for row in printed if row["series"] == series], found)
    _reference(panel, rows, "mean", "ours, unpruned", "--")
    _reference(panel, printed, "printed_mean", "paper, unpruned", ":")
    panel.set_xscale("log")
    ticks = [5, 10, 20, 50, 100]
    panel.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(4, 130)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("prefill FLOPs, fraction of unpruned (Eq. 5)")
    panel.set_ylabel(f"mean of {', '.join(scores.config['columns'])} (%)")
    figure.legend(loc="outside right upper")
    headings(figure, _title(scores), f"{_footer(scores, bool(rows))}\n{FIDELITY_LEGEND}")
    return figure


def caption(scores: Record) -> str:
    """Say what is drawn."""
    return (
        f"Mean of {', '.join(scores.config['columns'])} in percent, CIDEr times 100, against the cost of the language "
        f"model's prefill, {scores.config['model']}: filled markers and lines are ours, open ones the numbers of the "
        "paper's Table 1. Methods whose cost the paper gives as varying have no open marker."
    )


def _title(scores: Record) -> str:
    return f"Score against FLOPs, {scores.config['model']}"


def _footer(scores: Record, has_own: bool) -> str:
    limit = scores.config["limit"]
    parts = ["Filled: ours" if has_own else "Ours: not run yet", "open: the paper's Table 1", "bars: 95 % intervals"]
    if limit is not None:
        parts.append(f"only {limit} samples of each data set")
    return "; ".join(parts) + "."


def _looks(series: Sequence[str]) -> dict[str, Look]:
    """Return a look of its own for each method but the unpruned model, which is a line."""
    names = [name for name in dict.fromkeys(series) if name != "unpruned"]
    known = {name: found for name in names if (found := look(name)) is not None}
    left = iter(OTHERS)
    return {name: known.get(name) or next(left, Look("grey", ".")) for name in names}


def _ours(panel: "Axes", series: str, rows: Sequence[_Row], found: Look) -> None:
    ordered = sorted(rows, key=lambda row: float(row["flop_percent"]))
    costs, means = [row["flop_percent"] for row in ordered], [row["mean"] for row in ordered]
    label = marked(series, ordered[0].get("fidelity") if ordered else None)
    panel.plot(costs, means, color=found.color, marker=found.marker, markersize=6, label=label, zorder=3)
    for row in ordered:
        if row["mean_low"] is not None:
            panel.plot([row["flop_percent"]] * 2, [row["mean_low"], row["mean_high"]], color=found.color, linewidth=1.2)


def _papers(panel: "Axes", rows: Sequence[_Row], found: Look) -> None:
    for row in rows:
        where = (row["printed_percent"], row["printed_mean"])
        panel.plot(*where, marker=found.marker, color=found.color, markersize=9, mfc="none", mew=1.4, linestyle="")


def _reference(panel: "Axes", rows: Sequence[_Row], key: str, label: str, line: str) -> None:
    for row in rows:
        if row["series"] == "unpruned" and row[key] is not None:
            panel.axhline(row[key], color=theme().ink, linestyle=line, linewidth=1, label=label)
