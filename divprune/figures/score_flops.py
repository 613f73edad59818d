"""Score against the prefill's cost, all methods (the paper's Fig. 1 and 4)."""

from itertools import pairwise
from typing import TYPE_CHECKING

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.record_views import SHARE, Row, at_share, curves, reference, short_names
from divprune.figures.style import GREY, INK, PALE, canvas, color, headings, look, toy_notice
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORE = "mean score (%)"
GAP = 4.5  # between two names, in percent of the score
INSIDE_FROM = 30.0  # percent of the FLOPs; methods that act inside the LLM cost more at any keep ratio


def draw(suite: Record) -> "Figure":
    """Draw curves over the cost on the left, and every method by name at one number of tokens on the right."""
    rows = at_share(suite)
    figure, (left, right) = canvas(1.5 + 0.17 * max(len(rows), 14), 1, 2, width_ratios=(1.25, 1))
    _draw_curves(left, suite)
    _draw_ranking(right, rows, suite)
    bars = f"Bars and bands: {suite.config['confidence']:.0%} intervals. Thin grey lines: other methods."
    footer = f"{bars}\n{FIDELITY_LEGEND}"
    headings(figure, "Score against FLOPs, on toy scenes", f"{toy_notice(suite)}. {footer}")
    return figure


def caption(suite: Record) -> str:
    """Say what is drawn."""
    return (
        f"Mean of existence, count, color, shape and position over {suite.config['num_scenes']} held-out toy scenes, "
        "answered by the embedded toy model: in the manner of the paper's Fig. 1 and 4, not on its data. Left: against "
        "the cost of the language model's prefill (Eq. 5), at several keep ratios; thin grey lines are the "
        f"methods without a name. Right: all methods at a keep ratio of {SHARE}, or with the number that they choose "
        "themselves; open markers are those whose prefill costs more than the others', with the cost behind the name."
    )


def _draw_curves(panel: "Axes", suite: Record) -> None:
    full, blind = reference(suite, "unpruned"), reference(suite, "picture withheld")
    panel.axhline(full["mean_percent"], color=INK, linestyle="--", linewidth=1)
    panel.axhline(blind["mean_percent"], color=INK, linestyle=":", linewidth=1)
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
        panel.plot(costs, scores, color=PALE, linewidth=0.9)
        return
    panel.plot(costs, scores, color=found.color, marker=found.marker, markersize=5.5, zorder=3)
    low, high = ([row[f"mean_{end}_percent"] for row in rows] for end in ("low", "high"))
    panel.fill_between(costs, low, high, color=found.color, alpha=0.15, linewidth=0)


def _draw_ranking(panel: "Axes", rows: list[Row], suite: Record) -> None:
    usual = min(row["flop_percent"] for row in rows if row["matching"] == "tokens" and row["keep_ratio"] == SHARE)
    short, names = short_names(row["method"] for row in rows), []
    for place, row in enumerate(rows):
        dearer, name = row["flop_percent"] > 1.5 * usual, short[row["method"]]
        name = marked(name, row.get("fidelity"))
        names.append(f"{name} ({row['flop_percent']:.0f} %)" if dearer else name)
        _draw_row(panel, place, row, is_open=dearer)
    panel.axvline(reference(suite, "unpruned")["mean_percent"], color=INK, linestyle="--", linewidth=1)
    panel.axvline(reference(suite, "picture withheld")["mean_percent"], color=INK, linestyle=":", linewidth=1)
    panel.set_yticks(range(len(rows)), names, fontsize=8)
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        if look(row["method"]) is not None:
            label.set(color=color(row["method"]), weight="bold")
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.set_xlim(0, 104)
    panel.set_xlabel(SCORE)
    panel.set_title(f"{100 * SHARE:g} % of the tokens kept")


def _draw_row(panel: "Axes", place: int, row: Row, is_open: bool) -> None:
    found, middle = look(row["method"]), row["mean_percent"]
    ink, marker = (GREY, "o") if found is None else (found.color, found.marker)
    ends = [[middle - row["mean_low_percent"]], [row["mean_high_percent"] - middle]]
    face = "white" if is_open else ink
    panel.errorbar(middle, place, xerr=ends, color=ink, marker=marker, markersize=5, mfc=face, linewidth=1.2)
