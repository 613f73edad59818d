"""Questions about images, answered from all visual tokens and from those that a method keeps."""

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from divprune.figures.kept_on_image import faded, outline, show
from divprune.figures.samples import image_of
from divprune.figures.style import canvas, color, headings, rows_of, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LETTERS = 24
"""Of a question in a line."""


def draw(answers: Record) -> "Figure":
    """Draw a column a question: above the image with the answer from all tokens, below what is kept with its answer."""
    rows = rows_of(answers, "answer")
    figure, panels = canvas(4.0, 2, len(rows))
    for row, whole, pruned in zip(rows, panels[: len(rows)], panels[len(rows) :], strict=True):
        image, grid = image_of(row), row["grid"]
        kept = np.zeros(grid[0] * grid[1], dtype=bool)
        kept[row["kept_indices"]] = True
        show(whole, image)
        show(pruned, faded(image, kept.reshape(grid)))
        outline(pruned, kept.reshape(grid), image.shape[0] // grid[0])
        whole.set_title(fill(row["prompt"], _LETTERS), loc="center")
        _answered(whole, row["answer_unpruned"], theme().ink)
        _answered(pruned, row["answer"], color(answers.config["method"]))
    num_tokens, num_kept = grid[0] * grid[1], len(rows[0]["kept_indices"])
    panels[0].set_ylabel(f"all {num_tokens} tokens", weight="bold")
    panels[len(rows)].set_ylabel(f"{num_kept} of {num_tokens}", weight="bold", color=color(answers.config["method"]))
    headings(figure, f"Answers from all tokens, and from {num_kept / num_tokens:.0%}", _FOOTER)
    return figure


_FOOTER = (
    "Toy scenes and a toy model, not the paper's data. Outlined patches are kept; the LLM never sees the faded ones."
)


def _answered(panel: "Axes", answer: str, ink: str) -> None:
    panel.set_xlabel(answer, weight="bold", color=ink)


def caption(answers: Record) -> str:
    """Say what is drawn."""
    config, rows = answers.config, rows_of(answers, "answer")
    same = sum(row["answer"] == row["answer_unpruned"] for row in rows)
    return (
        f"Questions about the first held-out toy scenes, answered by the embedded model from all visual tokens (above) "
        f"and from those that `{config['method']}` keeps at a keep ratio of {config['keep_ratio']} (below): the same "
        f"answer to {same} of {len(rows)}."
    )
