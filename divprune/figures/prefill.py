"""What each method takes until the first token, and for what."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divprune.figures.style import canvas, headings, measured_on, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = (("prefill of the LLM", "blue"), ("selection", "orange"), ("encoder and all else", "pale"))


def draw(*benches: Record) -> "Figure":
    """Draw a panel a record and a bar a method, made up of its parts."""
    counts = [len(bench.rows) for bench in benches]
    figure, panels = canvas(1.2 + 0.6 * len(benches) + 0.42 * sum(counts), len(benches), 1, height_ratios=counts)
    for panel, bench in zip(panels, benches, strict=True):
        _draw_bench(panel, bench)
    panels[-1].set_xlabel("seconds")
    handles = [panels[0].patches[place * counts[0]] for place in range(len(PARTS))]
    panels[-1].legend(handles, [name for name, _ in PARTS], loc="upper right", bbox_to_anchor=(1.02, -0.22), ncols=3)
    footer = "Medians; lines reach to p20 and p80 of the whole. A selection too short to be seen stands in words."
    headings(figure, "Time to the first token", footer)
    return figure


def caption(*benches: Record) -> str:
    """Say what is drawn."""
    subjects = "; ".join(
        f"{bench.config['model']} ({bench.config['weights']} weights, {bench.config['num_layers']} layers, "
        f"{bench.config['dtype']} on the {bench.config['device']})"
        for bench in benches
    )
    return (
        "Time to the first token with each method next to the unpruned model, and what it is spent on, as "
        f"`divprune bench` measured it: {subjects}."
    )


def _draw_bench(panel: "Axes", bench: Record) -> None:
    rows = list(reversed(bench.rows))
    starts = [0.0] * len(rows)
    for part, (_, ink) in enumerate(PARTS):
        widths = [parts_of(row)[part] for row in rows]
        panel.barh(range(len(rows)), widths, left=starts, color=getattr(theme(), ink), height=0.7)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for place, row in enumerate(rows):
        middle, low, high = (row[f"ttft_{which}_seconds"] for which in ("median", "p20", "p80"))
        panel.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color=theme().ink, linewidth=1)
        text = f"{_seconds(middle)}{_speedup(row, bench.rows)}{_selection(row)}"
        panel.annotate(text, (high, place), (6, 0), textcoords="offset points", va="center", fontsize=9.5)
    panel.set_yticks(range(len(rows)), [_label(row) for row in rows])
    panel.set_xlim(0, 1.2 * max(row["ttft_p80_seconds"] for row in rows))
    panel.grid(False, axis="y")
    length = bench.config["num_prompt_tokens"]
    panel.set_title(
        f"{bench.config['model']}, {length} prompt tokens; {bench.config['dtype']}\n{measured_on(bench)}", fontsize=9.5
    )


def parts_of(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the seconds of `PARTS`."""
    # Inside the language model, choosing is part of its prefill too; it is a sort of M numbers there.
    prefill, selection = row["prefill_median_seconds"], row.get("selection_median_seconds", 0.0)
    return prefill, selection, max(0.0, row["ttft_median_seconds"] - prefill - selection)


def _label(row: Mapping[str, Any]) -> str:
    return row["method"] if row["num_kept"] is None else f"{row['method']}, {row['num_kept']} kept"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _selection(row: Mapping[str, Any]) -> str:
    seconds = row.get("selection_median_seconds")
    return "" if seconds is None else f"\nselection {1000 * seconds:.{1 if seconds < 0.01 else 0}f} ms"


def _speedup(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if row["num_kept"] is None:
        return ""
    return f" ({rows[0]['ttft_median_seconds'] / row['ttft_median_seconds']:.2f} x as fast)"
