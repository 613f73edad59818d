"""The HTML report: each picture with its kept tokens undimmed, the answers and the numbers, in one file.

The page needs no network: pictures, style and script are inside.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import divprune
from divprune.checkpoints import LoadedModel
from divprune.cli.answering import Pruner, Row
from divprune.cli.report_pictures import Figure, draw_media
from divprune.cli.summary import Summary
from divprune.cli.tables import seconds_text
from divprune.records import write_whole

_LONG_ANSWER = 100  # characters


@dataclass(frozen=True)
class Card:
    """Some pictures, and every question that was asked about them with the same tokens kept."""

    figures: tuple[Figure, ...]
    rows: tuple[Row, ...]

    @property
    def layout(self) -> str:
        """How the figures are set: a grid of many, one large photograph, or one small picture."""
        if len(self.figures) > 1:
            return "many"
        return "small" if self.figures[0].pixelated else "large"

    @property
    def has_long_answers(self) -> bool:
        """Whether the answers want the full width."""
        return any(len(text or "") > _LONG_ANSWER for row in self.rows for text in (row.answer, row.answer_unpruned))


def write_report(path: Path, rows: Sequence[Row], loaded: LoadedModel, method: str, pruner: Pruner) -> None:
    """Write the report, whole or not at all: a file that was there stays as it is if anything fails."""
    write_whole(path, render_report(rows, loaded, method, pruner))


def render_report(rows: Sequence[Row], loaded: LoadedModel, method: str, pruner: Pruner) -> str:
    """The report as HTML.

    Args:
        rows: the answered questions, at least one.
        loaded: the model that answered.
        method: the pruning method as the user wrote it.
        pruner: what was kept.
    """
    environment = Environment(
        loader=PackageLoader("divprune.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds_text
    return environment.get_template("report.html.j2").render(
        cards=_cards(rows, loaded),
        summary=Summary(rows),
        method=method,
        budget=_budget_text(pruner),
        setup=_setup(loaded),
    )


def _cards(rows: Sequence[Row], loaded: LoadedModel) -> list[Card]:
    grouped = [tuple(group) for _, group in groupby(rows, key=_same_picture)]
    return [
        Card(draw_media(group[0].ask.media, group[0].pruned, loaded.processor, first_id=index), group)
        for index, group in enumerate(grouped)
    ]


def _same_picture(row: Row) -> tuple[object, ...]:
    """What must agree for two questions to share a drawing."""
    orders = (tuple(item.selection_order.tolist()) for item in row.pruned.items)
    return (tuple(medium.name for medium in row.ask.media), *orders)


def _setup(loaded: LoadedModel) -> dict[str, str]:
    model = loaded.model
    return {
        "model": f"{loaded.name} ({model.config.model_type}, {model.num_parameters() / 1e6:,.1f} M parameters)",
        "numbers": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join(
            [f"divprune {divprune.__version__}", *(f"{name} {version(name)}" for name in ("transformers", "torch"))]
        ),
    }


def _budget_text(pruner: Pruner) -> str:
    if pruner.budget is None:
        return "as many as the method says"
    return f"num_keep {pruner.num_keep}" if pruner.keep_ratio is None else f"keep_ratio {pruner.keep_ratio}"
