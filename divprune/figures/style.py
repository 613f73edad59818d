"""How figures look: 6 inches wide with words of 10 points, so that they can be read at 400 pixels; in light and dark.

The colours, which colour-blind people can tell apart, are those of M. Okabe and K. Ito, "Color Universal Design"
(2008); methods also differ by marker.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.0  # inches
FOOTER_LETTERS = 100
"""In a line below a figure."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure.

    Attributes:
        name: stands in the names of its files, where it is not the first.
        ground: behind everything.
        ink: words and what is compared with.
        note: small words.
        grey: methods that do not stand out.
        pale: what stays in the background.
        grid: lines behind the data.
    """

    name: str
    ground: str
    ink: str
    note: str
    grey: str
    pale: str
    grid: str
    blue: str
    orange: str
    green: str
    vermillion: str
    purple: str
    sky: str


LIGHT = Theme(
    "light", ground="#ffffff", ink="#222222", note="#555555", grey="#8a8a8a", pale="#c4c4c4", grid="#ebebeb",
    blue="#0072b2", orange="#e69f00", green="#009e73", vermillion="#d55e00", purple="#cc79a7", sky="#56b4e9",
)  # fmt: skip
# Lighter where the colours above would be lost on a dark ground, GitHub's.
DARK = Theme(
    "dark", ground="#0d1117", ink="#e6edf3", note="#a3acb6", grey="#8b949e", pale="#545d68", grid="#242b33",
    blue="#4aa8e8", orange="#f0b429", green="#2fc49a", vermillion="#ff8246", purple="#e08cbd", sky="#9adcff",
)  # fmt: skip
THEMES = (LIGHT, DARK)
_THEME: ContextVar[Theme] = ContextVar("_THEME", default=LIGHT)


def theme() -> Theme:
    """Return the colours of the figure that is being drawn."""
    return _THEME.get()


@contextmanager
def themed(colours: Theme) -> Iterator[None]:
    """Draw in these colours inside the block."""
    import matplotlib

    before = _THEME.set(colours)
    try:
        with matplotlib.rc_context(_settings(colours)):
            yield
    finally:
        _THEME.reset(before)


def _settings(colours: Theme) -> Any:
    """Return matplotlib's settings."""
    inked = ("axes.labelcolor", "text.color", "xtick.color", "ytick.color", "legend.labelcolor")
    grounds = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(inked, colours.ink),
        **dict.fromkeys(grounds, colours.ground),
        "axes.edgecolor": colours.grey,
        "axes.grid": True,
        "axes.grid.axis": "both",
        "axes.labelsize": 10,
        "axes.axisbelow": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "figure.dpi": 100,
        "figure.titlesize": 13,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.color": colours.grid,
        "grid.linewidth": 0.7,
        "image.composite_image": False,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "savefig.dpi": 200,
        "svg.fonttype": "path",
        "svg.hashsalt": "divprune",
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
    }


@dataclass(frozen=True)
class Look:
    """How a method stands out.

    Attributes:
        paint: a colour of `Theme` by name, or any other one.
        marker: matplotlib's.
    """

    paint: str
    marker: str

    @property
    def color(self) -> str:
        """The colour in the theme of the figure that is being drawn."""
        return str(getattr(theme(), self.paint, self.paint))


LOOKS: Mapping[str, Look] = {
    "divprune": Look("blue", "o"),
    "random": Look("vermillion", "s"),
    "fastv": Look("green", "^"),
    "vtw": Look("purple", "D"),
    "visionzip": Look("orange", "v"),
    "cdpruner": Look("sky", "P"),
    "minmax": Look("ink", "X"),
}
"""The methods that stand out in every figure; the others are grey."""


def look(method: str) -> Look | None:
    """Return how a method stands out, whatever its parameters; None if it does not."""
    return LOOKS.get(method.partition(":")[0])


def color(method: str) -> str:
    """Return a method's colour."""
    found = look(method)
    return theme().grey if found is None else found.color


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
    lines = [line for part in footer.split("\n") for line in wrap(part, FOOTER_LETTERS)]
    figure.suptitle(title, x=0.008, ha="left")
    figure.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=8, color=theme().note)


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
