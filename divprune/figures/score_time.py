"""Score against the time to the first token."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.record_views import SHARE, Row, at_share, reference
from divprune.figures.samples import measured_methods
from divprune.figures.style import canvas, headings, look, measured_on, theme, toy_notice
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = (8.6, 13.0)  # pixels, at 100 an inch
MARGIN = 0.08
"""Beside the points, as a fraction of what lies between them."""


def draw(suite: Record, samples: Record) -> "Figure":
    """Draw a point a method: right and up is slow and good."""
    times = {row["method"]: row for row in measured_methods(samples)}
    rows = [row for row in at_share(suite, samples.config["keep_ratio"]) if row["method"] in times]
    rows.append(reference(suite, "unpruned"))
    figure, (panel,) = canvas(4.2)
    for row in rows:
        _draw_point(panel, row, times[row["method"]])
    panel.set_ylim(0, 112)
    shortest, longest = (1000 * end(times[row["method"]]["ttft_median_seconds"] for row in rows) for end in (min, max))
    panel.set_xlim(shortest - MARGIN * (longest - shortest), longest + 2 * MARGIN * (longest - shortest))
    _name_points(panel, rows, times)
    panel.set_xlabel("time to the first token (ms): encoder, selection and prefill")
    panel.set_ylabel("mean score (%)")
    bars = f"Grey: other methods. Bars: p20 to p80, and {suite.config['confidence']:.0%} intervals."
    footer = f"{toy_notice(suite)}. {bars} The axis begins above 0.\n{FIDELITY_LEGEND}"
    headings(figure, "Score against time, on toy scenes", footer)
    return figure


def caption(suite: Record, samples: Record) -> str:
    """Say what is drawn."""
    return (
        f"The score of `score-flops` at a keep ratio of {SHARE} against the median time to the first token over "
        f"{samples.config['num_scenes']} toy scenes, all methods in turns ({measured_on(samples)}). The embedded model "
        "is so small that the encoder and fixed costs are most of its time: large models differ."
    )


def _draw_point(panel: "Axes", row: Row, time: Row) -> None:
    middle, low, high = (1000 * time[f"ttft_{which}_seconds"] for which in ("median", "p20", "p80"))
    found, score = look(row["method"]), row["mean_percent"]
    is_full = row["method"] == "unpruned"
    stands_out = is_full or found is not None
    ink, marker = (theme().grey, "o") if found is None else (found.color, found.marker)
    if is_full:
        ink, marker = theme().ink, "*"
    panel.errorbar(
        middle,
        score,
        xerr=[[middle - low], [high - middle]] if stands_out else None,
        yerr=[[score - row["mean_low_percent"]], [row["mean_high_percent"] - score]] if stands_out else None,
        color=ink,
        marker=marker,
        markersize=10 if is_full else 6.5 if stands_out else 4,
        linewidth=1,
        linestyle="",
        zorder=3 if stands_out else 2,
    )


def _name_points(panel: "Axes", rows: Sequence[Row], times: Mapping[str, Row]) -> None:
    """Write the names that stand out beside their points, where neither names nor points are yet."""
    from matplotlib.transforms import Bbox

    panel.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    named = [row for row in rows if look(row["method"]) is not None or row["method"] == "unpruned"]
    places = [(1000 * times[row["method"]]["ttft_median_seconds"], row["mean_percent"]) for row in named]
    points = [panel.transData.transform(place) for place in places]
    taken = [Bbox.from_bounds(across - 6, up - 6, 12, 12) for across, up in points]
    for row, place, (across, up) in zip(named, places, points, strict=True):
        name = marked(row["method"].partition(":")[0], row.get("fidelity"))
        width, height = LETTER[0] * len(name), LETTER[1]
        corners = [(8, 5), (8, -5 - height), (-8 - width, 5), (-8 - width, -5 - height)]
        boxes = [Bbox.from_bounds(across + right, up + above, width, height) for right, above in corners]
        free = next((number for number, box in enumerate(boxes) if box.count_overlaps(taken) == 0), 0)
        taken.append(boxes[free])
        right, above = corners[free]
        found = look(row["method"])
        style: Any = {"color": theme().ink if found is None else found.color, "weight": "bold", "fontsize": 9.5}
        panel.annotate(name, place, (0.72 * right, 0.72 * above), textcoords="offset points", **style)
