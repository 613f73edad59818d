"""How far apart the kept tokens are at least, method by method over many images (the paper's Fig. 3b and 5f)."""

from collections.abc import Mapping
from statistics import median, mode
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.samples import measured_methods
from divprune.figures.style import canvas, color, data_notice, headings, look, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_BINS = 48
TALLEST = 0.95  # histogram, in rows


def draw(samples: Record) -> "Figure":
    """Draw a histogram a method above each other, on one logarithmic axis, the most diverse method on top."""
    from matplotlib.ticker import LogLocator

    rows = sorted(_compared(samples), key=lambda row: median(row["max_min_distances"]))
    figure, (panel,) = canvas(1.2 + 0.21 * len(rows))
    edges = _edges(rows)
    histograms = [np.histogram(row["max_min_distances"], edges)[0] / len(row["max_min_distances"]) for row in rows]
    scale = TALLEST / max(float(shares.max()) for shares in histograms)
    for place, (row, shares) in enumerate(zip(rows, histograms, strict=True)):
        panel.stairs(place + scale * shares, edges, baseline=place, fill=True, color=color(row["method"]))
        for ink, width in ((theme().ground, 2.6), (theme().ink, 1.2)):
            panel.plot(median(row["max_min_distances"]), place + 0.2, "|", color=ink, markersize=8, mew=width)
    panel.set_xscale("log")
    panel.set_xlim(edges[0], edges[-1] * 1.1)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.grid(False, axis="y")
    panel.set_ylim(-0.2, len(rows))
    panel.set_yticks(range(len(rows)), [row["label"] for row in rows])
    _color_labels(panel, rows)
    panel.set_xlabel("smallest cosine distance between two kept tokens")
    kept = f"{rows[0]['num_kept']:.0f} of {samples.config['num_visual_tokens']} tokens kept"
    shown = "pictures" if "num_pictures" in samples.config else "scenes"
    footer = (
        f"{data_notice(samples)}. {kept}; heights are fractions of the {shown}, | is the median.\n{FIDELITY_LEGEND}"
    )
    headings(figure, "How different the kept tokens are", footer)
    return figure


def caption(samples: Record) -> str:
    """Say what is drawn."""
    return (
        f"Histograms over {samples.config['num_scenes']} held-out toy scenes of the smallest cosine distance between "
        f"two kept tokens, at a keep ratio of {samples.config['keep_ratio']}: the paper's Fig. 3b and 5f. For methods "
        "that act inside the LLM it is the distance of the visual tokens before it, for merging ones that of "
        "what the language model reads. Methods that cannot keep just as many tokens are left out; those that choose "
        "the same ones share a line."
    )


def _compared(samples: Record) -> list[Mapping[str, Any]]:
    """Those that keep as many tokens as the others (fewer are farther apart by themselves), twins together."""
    rows = [row for row in measured_methods(samples) if row["max_min_distances"]]
    usual = mode(row["num_kept"] for row in rows)
    twins: dict[tuple[float, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["num_kept"] == usual:
            twins.setdefault(tuple(row["max_min_distances"]), []).append(row)
    return [
        {**same[0], "label": ", ".join(marked(row["method"], row.get("fidelity")) for row in same)}
        for same in twins.values()
    ]


def _edges(rows: list[Mapping[str, Any]]) -> NDArray[np.float64]:
    values = [value for row in rows for value in row["max_min_distances"] if value > 0]
    return np.geomspace(min(values) / 1.1, max(values) * 1.1, NUM_BINS + 1)


def _color_labels(panel: "Axes", rows: list[Mapping[str, Any]]) -> None:
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        if look(row["method"]) is not None:
            label.set(color=color(row["method"]), weight="bold")
