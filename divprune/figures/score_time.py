"""Score against the time to the first token."""

from typing import TYPE_CHECKING

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.record_views import SHARE, Row, at_share, reference
from divprune.figures.samples import measured_methods
from divprune.figures.style import GREY, INK, canvas, headings, look, measured_on, toy_notice
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(suite: Record, samples: Record) -> "Figure":
    """Draw a point a method: right and up is slow and good."""
    times = {row["method"]: row for row in measured_methods(samples)}
    rows = [row for row in at_share(suite, samples.config["keep_ratio"]) if row["method"] in times]
    figure, (panel,) = canvas(4.4)
    for row in (*rows, reference(suite, "unpruned")):
        _draw_point(panel, row, times[row["method"]])
    panel.plot([], [], color=GREY, marker="o", linestyle="", markersize=4, label="other methods")
    panel.set_ylim(0, 106)
    panel.set_xlim(left=0)
    panel.set_xlabel("time to the first token (ms): encoder, selection and prefill")
    panel.set_ylabel("mean score (%)")
    panel.legend(loc="lower left")
    bars = f"Bars: p20 to p80, and {suite.config['confidence']:.0%} intervals."
    footer = f"{toy_notice(suite)}. {bars}\n{FIDELITY_LEGEND}"
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
    ink, marker = (INK, "*") if is_full else (GREY, "o") if found is None else (found.color, found.marker)
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
        label=marked(row["method"].partition(":")[0], row.get("fidelity")) if stands_out else None,
        zorder=3 if stands_out else 2,
    )
