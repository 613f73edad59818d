"""Score against the prefill's cost, all methods (the paper's Fig. 1 and 4)."""

from itertools import pairwise
from typing import TYPE_CHECKING

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.record_views import Row, curves, reference, short_names
from divprune.figures.style import canvas, color, headings, look, theme, toy_notice
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORE = "mean score (%)"
GAP = 4.5  # between two names, in percent of the score
INSIDE_FROM = 30.0  # percent of the FLOPs; methods that act inside the LLM cost more at any keep ratio


def draw(suite: Record) -> "Figure":
    """Draw a curve a method over the cost."""
    figure, (panel,) = canvas(4.6)
    _draw_curves(panel, suite)
    bands = f"Bands: {suite.config['confidence']:.0%} intervals. Thin grey lines: other methods."
    headings(figure, "Score against FLOPs, on toy scenes", f"{toy_notice(suite)}. {bands}\n{FIDELITY_LEGEND}")
    return figure


def caption(suite: Record) -> str:
    """Say what is drawn."""
    return (
        f"Mean of existence, count, color, shape and position over {suite.config['num_scenes']} held-out toy scenes, "
        "answered by the embedded toy model, against the cost of the language model's prefill (Eq. 5) at several keep "
        "ratios: in the manner of the paper's Fig. 1 and 4, not on its data. Thin grey lines are the methods without a "
        "name."
    )


def _draw_curves(panel: "Axes", suite: Record) -> None:
    full, blind = reference(suite, "unpruned"), reference(suite, "picture withheld")
    panel.axhline(full["mean_percent"], color=theme().ink, linestyle="--", linewidth=1)
    panel.axhline(blind["mean_percent"], color=theme().ink, linestyle=":", linewidth=1)
    ordered = sorted(curves(suite).items(), key=lambda entry: look(entry[0]) is not None)
    for method, rows in ordered:
        _draw_curve(panel, method, rows)
    panel.set_xscale("log")
    ticks = [5, 10, 20, 50, 100]
    panel.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(3, 140)
    panel.set_ylim(0, 108)
    _name_curves(panel, dict(ordered), full["mean_percent"])
    panel.set_xlabel("prefill FLOPs, fraction of unpruned")
    panel.set_ylabel(SCORE)
    right = panel.get_xlim()[1]
    panel.text(right, full["mean_percent"] + 1, "unpruned", ha="right", va="bottom", fontsize=8)
    panel.text(right, blind["mean_percent"] - 1, "picture withheld", ha="right", va="top", fontsize=8)


def _name_curves(panel: "Axes", found: dict[str, list[Row]], ceiling: float) -> None:
    """Write each name that stands out beside the cheap end of its curve, apart from each other and below a line."""
    ends = {method: rows[0] for method, rows in found.items() if look(method) is not None}
    names = short_names(found)
    for is_cheap in (True, False):
        side = {method: row for method, row in ends.items() if (row["flop_percent"] < INSIDE_FROM) == is_cheap}
        below = ceiling - GAP * (0.7 if is_cheap else 1.6)
        heights = _spread([min(row["mean_percent"], below) for row in side.values()], GAP)
        for (method, row), height in zip(side.items(), heights, strict=True):
            shift, anchor = (0.9, "right") if is_cheap else (1.12, "left")
            place = (shift * row["flop_percent"], height)
            panel.text(
                *place,
                marked(names[method], row.get("fidelity")),
                color=color(method),
                ha=anchor,
                va="center",
                fontsize=8.5,
                weight="bold",
            )


def _spread(heights: list[float], gap: float) -> list[float]:
    """Push heights apart, downwards from the highest, until none is nearer to another than `gap`."""
    order = sorted(range(len(heights)), key=lambda place: -heights[place])
    result = list(heights)
    for above, place in pairwise(order):
        result[place] = min(result[place], result[above] - gap)
    return result


def _draw_curve(panel: "Axes", method: str, rows: list[Row]) -> None:
    costs, scores = [row["flop_percent"] for row in rows], [row["mean_percent"] for row in rows]
    found = look(method)
    if found is None:
        panel.plot(costs, scores, color=theme().pale, linewidth=0.9)
        return
    panel.plot(costs, scores, color=found.color, marker=found.marker, markersize=5.5, zorder=3)
    low, high = ([row[f"mean_{end}_percent"] for row in rows] for end in ("low", "high"))
    panel.fill_between(costs, low, high, color=found.color, alpha=0.15, linewidth=0)
