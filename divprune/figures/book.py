"""Draws whatever there are records for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from divprune.errors import MissingDependencyError, RecordError
from divprune.figures import max_min_histogram, paper_scores, tokens_tsne
from divprune.figures.catalog import COMMANDS, FIGURES, FigureSpec, Sources
from divprune.figures.saving import rendered
from divprune.figures.style import LIGHT, THEMES, themed
from divprune.records import Record


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        spec: which one.
        caption: what it shows, in sentences.
        files: its bytes by the ends of their names: ".png", ".svg", and of the dark variant "-dark.png", "-dark.svg".
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
    _require_matplotlib()
    lacking = [(spec, sources.missing(spec.records)) for spec in specs]
    # All records are read before the first figure is drawn: a broken one costs no time.
    loaded = [(spec, sources.load(spec.records)) for spec, names in lacking if not names]
    drawn = tuple(_drawn(spec, records, sources) for spec, records in loaded)
    return Drawing(drawn, tuple((spec, names) for spec, names in lacking if names))


def _drawn(spec: FigureSpec, records: tuple[Record, ...], sources: Sources) -> Drawn:
    files: dict[str, bytes] = {}
    try:
        for theme in THEMES:
            with themed(theme):
                for kind, content in rendered(spec.draw(*records), spec.title, sources.stamp(spec.records)).items():
                    files[f"{'' if theme is LIGHT else f'-{theme.name}'}.{kind}"] = content
        caption = spec.caption(*records)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        shown = " or ".join(f"{record.name}.json" for record in records)
        again = "; ".join(COMMANDS[name] for name in spec.records)
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(f"{shown} lacks what figure {spec.name} shows ({reason}); measure again: {again}") from error
    return Drawn(spec, caption, files)


ENDINGS = ("", "-tsne", "-max-min")
"""What may follow a record's name in the names of its figures."""


def reproduced(record: Record) -> dict[str, bytes]:
    """Draw what a record of `divprune reproduce figure1`, `3`, `4` or `5` shows.

    Returns:
        The files' contents by name.

    Raises:
        MissingDependencyError: matplotlib or scikit-learn is not installed.
        RecordError: the record does not hold what a figure shows.
    """
    _require_matplotlib()
    is_scores = "columns" in record.config
    parts: dict[str, Any] = {"": paper_scores} if is_scores else {"-tsne": tokens_tsne, "-max-min": max_min_histogram}
    files = {}
    try:
        with themed(LIGHT):
            for ending, module in parts.items():
                name = f"{record.name}{ending}"
                for kind, content in rendered(module.draw(record), name, f"{record.name}.json").items():
                    files[f"{name}.{kind}"] = content
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(
            f"{record.name}.json lacks what its figure shows ({error}); delete it and run again"
        ) from error
    return files


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"figures need {error.name}: pip install 'divprune[viz]'") from None
