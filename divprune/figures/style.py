"""How figures look: 8 inches wide, so that they can be read at 800 pixels.

The colours, which colour-blind people can tell apart, are those of M. Okabe and K. Ito, "Color Universal Design"
(2008); methods also differ by marker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches
INK, GREY, PALE = "#222222", "#8a8a8a", "#c4c4c4"
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"

RC: Any = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.grid.axis": "both",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.dpi": 100,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#ebebeb",
    "grid.linewidth": 0.7,
    "image.composite_image": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "divprune",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of a method."""

    color: str
    marker: str


LOOKS: Mapping[str, Look] = {
    "divprune": Look(BLUE, "o"),
    "random": Look(VERMILLION, "s"),
    "fastv": Look(GREEN, "^"),
    "vtw": Look(PURPLE, "D"),
    "visionzip": Look(ORANGE, "v"),
    "cdpruner": Look(SKY, "P"),
    "minmax": Look(BLACK, "X"),
}
"""The methods that stand out in every figure; the others are grey."""


def look(method: str) -> Look | None:
    """Return how a method stands out, whatever its parameters; None if it does not."""
    return LOOKS.get(method.partition(":")[0])


def color(method: str) -> str:
    """Return a method's colour."""
    found = look(method)
    return GREY if found is None else found.color


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure and its panels, row by row.

    Args:
        height: in inches.
        rows: of panels.
        columns: of panels.
        options: of matplotlib's `subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def headings(figure: "Figure", title: str, footer: str) -> None:
    """Write the title above a figure, and below it what a reader must know wherever it ends up."""
    figure.suptitle(title, x=0.008, ha="left")
    figure.supxlabel(footer, x=0.008, ha="left", fontsize=8, color="#555555")


def toy_notice(record: Record) -> str:
    """Say what data a record is about."""
    return f"{record.config['num_scenes']} toy scenes and a toy model, not the paper's data"


def data_notice(record: Record, one: bool = False) -> str:
    """Say what images a record is about, for one of them or for all."""
    given = record.config.get("num_pictures")
    if given is not None:
        return f"{f'One of {given}' if one else given} images given, as {record.config['model']} sees them"
    return "One toy scene, not the paper's data" if one else toy_notice(record)


def measured_on(record: Record) -> str:
    """Say on what machine a record was measured."""
    machine, versions = record.provenance["machine"], record.provenance["versions"]
    threads = machine["num_threads"]
    where = machine["gpu"] if record.config["device"] == "cuda" else machine["processor"]
    count = "" if record.config["device"] == "cuda" else f", {threads} thread{'s' if threads > 1 else ''}"
    return f"{where}{count}, torch {versions['torch']}"


def rows_of(record: Record, case: str) -> Sequence[Mapping[str, Any]]:
    """Return the rows of one case."""
    return [row for row in record.rows if row["case"] == case]
