"""Write the HTML report: each image with its kept tokens undimmed, the answers and the numbers, in one file.

The page needs no network: images, style and script are inside.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import divprune
from divprune.checkpoints import LoadedModel
from divprune.config import PruningConfig
from divprune.demo.answering import AnswerPair
from divprune.demo.overlays import Figure, draw_media
from divprune.demo.summary import Summary
from divprune.outputs import FileKind, write_whole
from divprune.records import seconds_text

_LONG_ANSWER = 100  # characters
REPORT = FileKind(
    "report of `divprune run`",
    "report.html",
    rb"\A\s*<!doctype html>.*<title>divprune: [^<]* visual tokens</title>",
)


_SMALL_MODEL = 100e6  # parameters
_FEW_RUNS = 3


@dataclass(frozen=True)
class Card:
    """Some images, and every question that was asked about them with the same tokens kept.

    Attributes:
        views: the drawings of all images, for each number of kept tokens.
        rows: the questions.
    """

    views: tuple[tuple[Figure, ...], ...]
    rows: tuple[AnswerPair, ...]

    @property
    def figures(self) -> tuple[tuple[Figure, ...], ...]:
        """The drawings of each image, one for each number of kept tokens."""
        return tuple(zip(*self.views, strict=True))

    @property
    def layout(self) -> str:
        """How the figures are set: a grid of many, one large photograph, or one small image."""
        if len(self.figures) > 1:
            return "many"
        return "small" if self.views[0][0].pixelated else "large"

    @property
    def has_long_answers(self) -> bool:
        """Whether the answers want the full width."""
        return any(len(text or "") > _LONG_ANSWER for row in self.rows for text in (row.answer, row.answer_unpruned))


def write_report(
    path: Path, rows: Sequence[AnswerPair], loaded: LoadedModel, method: str, config: PruningConfig
) -> None:
    """Write the report, whole or not at all: a file that was there stays as it is if anything fails."""
    write_whole(path, render_report(rows, loaded, method, config))


def render_report(rows: Sequence[AnswerPair], loaded: LoadedModel, method: str, config: PruningConfig) -> str:
    """Render the report as HTML.

    Args:
        rows: the answered questions, at least one.
        loaded: the model that answered.
        method: the pruning method as the user wrote it.
        config: how it was pruned.
    """
    environment = Environment(
        loader=PackageLoader("divprune.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds_text
    summary, budget = Summary(rows), _budget_text(config)
    views = summary.views(budget)
    return environment.get_template("report.html.j2").render(
        cards=_cards(rows, loaded),
        summary=summary,
        views=views,
        choices=sorted(enumerate(views), key=lambda choice: choice[1].kept_fraction),
        method=method,
        budget=budget,
        setup=_setup(loaded),
        is_small=loaded.model.num_parameters() < _SMALL_MODEL,
        has_spread=len(rows[0].prefill.samples) >= _FEW_RUNS,
    )


def _cards(rows: Sequence[AnswerPair], loaded: LoadedModel) -> list[Card]:
    grouped = [tuple(group) for _, group in groupby(rows, key=_same_image)]
    return [Card(tuple(_views(group[0], loaded, index)), group) for index, group in enumerate(grouped)]


def _views(row: AnswerPair, loaded: LoadedModel, index: int) -> Iterator[tuple[Figure, ...]]:
    for number, view in enumerate(row.kept("")):
        name = f"{index}-{number}" if number else str(index)
        yield draw_media(row.example.media, view.pruned, loaded.processor, first_id=name)


def _same_image(row: AnswerPair) -> tuple[object, ...]:
    """Return what must agree for two questions to share a drawing."""
    orders = (tuple(item.selection_order.tolist()) for view in row.kept("") for item in view.pruned.items)
    return (tuple(medium.name for medium in row.example.media), *orders)


def _setup(loaded: LoadedModel) -> dict[str, str]:
    model = loaded.model
    return {
        "model": f"{loaded.name} ({model.config.model_type})",
        "parameters": f"{model.num_parameters() / 1e6:,.1f} M parameters",
        "numbers": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join(
            [f"divprune {divprune.__version__}", *(f"{name} {version(name)}" for name in ("transformers", "torch"))]
        ),
    }


def _budget_text(config: PruningConfig) -> str:
    if config.budget is None:
        text = "as many as the method says"
    else:
        text = f"num_keep {config.num_keep}" if config.keep_ratio is None else f"keep_ratio {config.keep_ratio}"
    others = {"scope": config.scope != "item", "newlines": config.newlines != "budget"}
    others["encoder"] = config.encoder is not None
    return ", ".join([text, *(f"{name} {getattr(config, name)}" for name, differs in others.items() if differs)])
