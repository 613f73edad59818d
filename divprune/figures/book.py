"""Draws whatever there are records for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from divprune.errors import MissingDependencyError, RecordError
from divprune.figures.catalog import FIGURES, FigureSpec
from divprune.figures.saving import rendered
from divprune.figures.sources import COMMANDS, Sources
from divprune.figures.style import RC
from divprune.records import Record


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        spec: which one.
        caption: what it shows, in sentences.
        files: its bytes, by format.
    """

    spec: FigureSpec
    caption: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Drawing:
    """What could be drawn and what could not.

    Attributes:
        drawn: the figures.
        missing: the others, with the records that they lack.
    """

    drawn: tuple[Drawn, ...]
    missing: tuple[tuple[FigureSpec, tuple[str, ...]], ...]


def draw_figures(sources: Sources, specs: Sequence[FigureSpec] = FIGURES) -> Drawing:
    """Draw figures; nothing is written.

    Args:
        sources: the records.
        specs: which figures.

    Raises:
        MissingDependencyError: matplotlib or scikit-learn is not installed.
        RecordError: a record is broken, or does not hold what a figure shows.
    """
    try:
        import matplotlib
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"figures need {error.name}: pip install 'divprune[viz]'") from None
    lacking = [(spec, sources.missing(spec.records)) for spec in specs]
    # All records are read before the first figure is drawn: a broken one costs no time.
    loaded = [(spec, sources.load(spec.records)) for spec, names in lacking if not names]
    with matplotlib.rc_context(RC):
        drawn = tuple(_drawn(spec, records, sources) for spec, records in loaded)
    return Drawing(drawn, tuple((spec, names) for spec, names in lacking if names))


def _drawn(spec: FigureSpec, records: tuple[Record, ...], sources: Sources) -> Drawn:
    try:
        figure, caption = spec.draw(*records), spec.caption(*records)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        files = " or ".join(f"{record.name}.json" for record in records)
        again = "; ".join(COMMANDS[name] for name in spec.records)
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(f"{files} lacks what figure {spec.name} shows ({reason}); measure again: {again}") from error
    return Drawn(spec, caption, rendered(figure, spec.title, sources.stamp(spec.records)))
