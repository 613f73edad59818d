"""Every figure there is, in the order of the gallery."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from divprune.figures import (
    answers_on_image,
    encoder_time,
    kept_on_image,
    kept_on_photograph,
    max_min_histogram,
    prefill,
    score_flops,
    score_ranking,
    score_time,
    selection_time,
    tokens_tsne,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
import hashlib
from collections.abc import Mapping
from pathlib import Path

from divprune.records import Record, load_record

COMMANDS: Mapping[str, str] = {
    "answers": "python -m benchmarks.answers",
    "eval-scenes": "divprune eval --suite scenes",
    "photograph": "python -m benchmarks.photograph",
    "samples": "python -m benchmarks.samples",
    "selection": "python -m benchmarks.selection",
    "encoder-time-*": "python -m benchmarks.encoder",
    "bench-*": "divprune bench --architecture llava-1.5-7b --output results",
}
"""What writes each record; `*` stands for any number of them."""


@dataclass(frozen=True)
class Sources:
    """A folder of records.

    Attributes:
        folder: where they are.
    """

    folder: Path

    def missing(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the names, keys of `COMMANDS`, of which there is no record."""
        return tuple(pattern for pattern in patterns if not self._paths(pattern))

    def load(self, patterns: tuple[str, ...]) -> tuple[Record, ...]:
        """Read all records of these names, in their order.

        Raises:
            RecordError: one of them is no record.
        """
        return tuple(load_record(path) for pattern in patterns for path in self._paths(pattern))

    def stamp(self, patterns: tuple[str, ...]) -> str:
        """Return names and checksums of the records, by which a drawing can tell whether it is still theirs."""
        paths = [path for pattern in patterns for path in self._paths(pattern)]
        return ", ".join(f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" for path in paths)

    def _paths(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(f"{pattern}.json"))


@dataclass(frozen=True)
class FigureSpec:
    """One figure.

    Attributes:
        name: of its files and for `--only`.
        title: a few words.
        records: what it is drawn from: keys of `sources.COMMANDS`.
        draw: draws it, given its records.
        caption: says what it shows, given its records.
    """

    name: str
    title: str
    records: tuple[str, ...]
    draw: "Callable[..., Figure]"
    caption: Callable[..., str]


FIGURES: tuple[FigureSpec, ...] = (
    FigureSpec(
        "answers",
        "Answers from all tokens and from few",
        ("answers",),
        answers_on_image.draw,
        answers_on_image.caption,
    ),
    FigureSpec(
        "kept-on-photograph",
        "Kept tokens on a photograph",
        ("photograph",),
        kept_on_photograph.draw,
        kept_on_photograph.caption,
    ),
    FigureSpec("kept-on-image", "Kept tokens on the image", ("samples",), kept_on_image.draw, kept_on_image.caption),
    FigureSpec("score-flops", "Score against FLOPs", ("eval-scenes",), score_flops.draw, score_flops.caption),
    FigureSpec("score-ranking", "Every method's score", ("eval-scenes",), score_ranking.draw, score_ranking.caption),
    FigureSpec("score-time", "Score against time", ("eval-scenes", "samples"), score_time.draw, score_time.caption),
    FigureSpec(
        "max-min-histogram",
        "How different the kept tokens are",
        ("samples",),
        max_min_histogram.draw,
        max_min_histogram.caption,
    ),
    FigureSpec(
        "tokens-tsne", "Where the kept tokens lie among all", ("samples",), tokens_tsne.draw, tokens_tsne.caption
    ),
    FigureSpec("prefill", "Time to the first token", ("bench-*",), prefill.draw, prefill.caption),
    FigureSpec(
        "encoder-time",
        "Time to the first token with fewer patches encoded",
        ("encoder-time-*",),
        encoder_time.draw,
        encoder_time.caption,
    ),
    FigureSpec(
        "selection-time",
        "Selection time against the number of tokens",
        ("selection",),
        selection_time.draw,
        selection_time.caption,
    ),
)
