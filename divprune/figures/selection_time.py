"""What the selection takes, against the number of tokens to choose from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divprune.figures.style import canvas, headings, measured_on, rows_of, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = (
    ("paper", "gaussian", "the paper's procedure", "vermillion", "s", "-"),
    ("matrix_product", "gaussian", "one matrix product alone", "grey", "^", "--"),
    ("select", "gaussian", "select, Gaussian tokens: the hardest case", "blue", "o", ":"),
    ("select", "picture", "select, a photograph's tokens", "blue", "o", "-"),
)


def draw(selection: Record) -> "Figure":
    """Draw medians with 20th to 80th percentiles, both axes logarithmic."""
    from matplotlib.ticker import NullLocator

    rows = rows_of(selection, "compare")
    figure, (panel,) = canvas(3.9)
    for quantity, features, label, ink, marker, line in CURVES:
        _curve(panel, [row for row in rows if row["features"] == features], quantity, label, (ink, marker, line))
    sizes = sorted({row["num_visual_tokens"] for row in rows})
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(sizes, [f"{size}" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())
    ticks = [10, 30, 100, 300, 1000, 3000]
    panel.set_yticks(ticks, [f"{tick} ms" if tick < 1000 else f"{tick // 1000} s" for tick in ticks])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("visual tokens to choose from; about a tenth is kept")
    panel.legend(loc="upper left")
    _note_speedup(panel, max(rows, key=lambda row: (row["num_visual_tokens"], row["features"])))
    footer = f"Medians of {selection.config['repeats']} runs, bars to p20 and p80; {measured_on(selection)}."
    headings(figure, "Time of the selection", footer)
    return figure


def caption(selection: Record) -> str:
    """Say what is drawn."""
    widths = " or ".join(str(width) for width in sorted({row["width"] for row in rows_of(selection, "compare")}))
    return (
        "Time to choose the tokens of one image by the paper's procedure and by `select`, which finds the same "
        "tokens, beside one product of the token matrix with its transpose, which the paper's procedure starts with. "
        f"Tokens are {widths} wide, {selection.config['dtype']} on the {selection.config['device']}."
    )


def _curve(
    panel: "Axes", rows: Sequence[Mapping[str, Any]], quantity: str, label: str, style: tuple[str, str, str]
) -> None:
    paint, marker, line = style
    ink = getattr(theme(), paint)
    ordered = sorted(rows, key=lambda row: row["num_visual_tokens"])
    middle, low, high = (
        [1000 * row[f"{quantity}_{which}_seconds"] for row in ordered] for which in ("median", "p20", "p80")
    )
    below = [a - b for a, b in zip(middle, low, strict=True)]
    above = [b - a for a, b in zip(middle, high, strict=True)]
    sizes = [row["num_visual_tokens"] for row in ordered]
    face = theme().ground if line == ":" else ink
    panel.errorbar(
        sizes, middle, [below, above], color=ink, marker=marker, markersize=5, linestyle=line, label=label, mfc=face
    )


def _note_speedup(panel: "Axes", row: Mapping[str, Any]) -> None:
    """Mark by how much the largest case is faster."""
    size, top, bottom = row["num_visual_tokens"], row["paper_median_seconds"], row["select_median_seconds"]
    panel.annotate(
        "",
        xy=(size * 1.06, 1000 * bottom),
        xytext=(size * 1.06, 1000 * top),
        arrowprops={"arrowstyle": "->", "color": theme().ink, "shrinkA": 0, "shrinkB": 0},
    )
    text = f"{row['speedup_median_ratio']:.1f} x\nas fast"
    panel.text(size * 1.1, 1000 * (top * bottom) ** 0.5, text, va="center", fontsize=9)
    panel.set_xlim(right=size * 1.4)
