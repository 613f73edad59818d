"""What is kept of a photograph, at two keep ratios and beside random tokens."""

from typing import TYPE_CHECKING

import numpy as np

from divprune.figures.kept_on_image import faded, outline, show
from divprune.figures.samples import image_of
from divprune.figures.style import canvas, color, headings, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(photograph: Record) -> "Figure":
    """Draw the photograph, and beside it what is left of it in each row."""
    image, grid = image_of(photograph.config), photograph.config["grid"]
    figure, (whole, *others) = canvas(2.5, 1, 1 + len(photograph.rows))
    show(whole, image)
    total = photograph.config["num_visual_tokens"]
    whole.set_title(f"all {total}", color=theme().ink, weight="bold", loc="center")
    for panel, row in zip(others, photograph.rows, strict=True):
        kept = np.zeros(grid[0] * grid[1], dtype=bool)
        kept[row["kept_indices"]] = True
        show(panel, faded(image, kept.reshape(grid)))
        outline(panel, kept.reshape(grid), image.shape[0] // grid[0], width=0.5)
        panel.set_title(f"{row['method']}: {kept.sum()}", color=color(row["method"]), weight="bold", loc="center")
    footer = (
        f"Vision tower and projector of the shape of {photograph.config['architecture']} with random weights: "
        f"photograph, token grid and selection are real, the features are not. {photograph.config['credit']}."
    )
    headings(figure, f"What is kept of a photograph's {total} visual tokens", footer)
    return figure


def caption(photograph: Record) -> str:
    """Say what is drawn."""
    config, ratios = photograph.config, [f"{row['method']} {row['keep_ratio']:g}" for row in photograph.rows]
    return (
        f"A photograph as the vision tower of {config['architecture']} sees it, and the patches whose tokens are kept "
        f"(keep ratios: {', '.join(ratios)}). Tower and projector have the real shape and random weights, so the "
        f"features are not those of the trained model. {config['credit']}."
    )
