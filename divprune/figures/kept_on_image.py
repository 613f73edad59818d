"""Which patches of an image each method keeps, side by side."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.samples import image_of, patches
from divprune.figures.style import canvas, color, headings, rows_of, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METHODS = ("divprune", "fastv", "visionzip", "cdpruner", "random")
VEIL = 0.65  # fraction of the ground over what is dropped


def draw(samples: Record) -> "Figure":
    """Draw a row an image and a column a method; what is dropped is faded to the colour of its patch."""
    shown = rows_of(samples, "sample")
    columns = 1 + len(_METHODS)
    fidelities = {row["method"]: row.get("fidelity") for row in rows_of(samples, "method")}
    figure, panels = canvas(0.95 + 1.02 * len(shown), len(shown), columns)
    for place, sample in enumerate(shown):
        row, image, grid = panels[columns * place : columns * (place + 1)], image_of(sample), sample["grid"]
        show(row[0], image)
        for panel, method in zip(row[1:], _METHODS, strict=True):
            kept = np.zeros(grid[0] * grid[1], dtype=bool)
            kept[sample["kept_indices"][method]] = True
            show(panel, faded(image, kept.reshape(grid)))
            outline(panel, kept.reshape(grid), image.shape[0] // grid[0])
    for panel, title in zip(panels, ("all tokens", *_METHODS), strict=False):
        panel.set_title(
            marked(title, fidelities.get(title)),
            color=theme().ink if title == "all tokens" else color(title),
            weight="bold",
            loc="center",
        )
    num_kept = len(shown[0]["kept_indices"][_METHODS[0]])
    title = f"What is kept: {num_kept} of {samples.config['num_visual_tokens']} visual tokens"
    footer = f"Toy scenes and a toy model, not the paper's data. What is dropped is faded.\n{FIDELITY_LEGEND}"
    headings(figure, title, footer)
    return figure


def caption(samples: Record) -> str:
    """Say what is drawn."""
    return (
        f"The first held-out toy scenes and the patches whose tokens each method keeps at a keep ratio of "
        f"{samples.config['keep_ratio']}; the question was *{samples.config['question']}* `fastv` chooses inside the "
        f"language model, the others before it; `visionzip` also merges tokens into those shown."
    )


def faded(image: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace each dropped patch by its mean colour, most of which the figure's ground covers.

    Args:
        image: (height, width, 3) in [0, 1].
        kept: (rows, columns), one entry a patch.
    """
    cut = patches(image, kept.shape)
    ground = np.array([int(theme().ground[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    tint = VEIL * ground + (1 - VEIL) * cut.mean(axis=(2, 3), keepdims=True)
    chosen = np.where(kept[:, :, None, None, None], cut, tint).swapaxes(1, 2)
    return chosen.reshape(chosen.shape[0] * chosen.shape[1], -1, 3)


def show(panel: "Axes", image: NDArray[np.float64]) -> None:
    """Show an image (height, width, 3) in [0, 1]."""
    panel.imshow(np.round(image * 255).astype(np.uint8), interpolation="none")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    panel.spines[:].set(visible=True, linewidth=0.6)


def outline(panel: "Axes", kept: NDArray[np.bool_], size: int, width: float = 0.8) -> None:
    """Draw a frame around each kept patch (rows, columns) of `size` pixels."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    unit = Path.unit_rectangle()
    corners = (np.argwhere(kept) * size - 0.5).tolist()
    squares = [unit.transformed(Affine2D().scale(size).translate(column, row)) for row, column in corners]
    # One path for all: a tenth of the size in the SVG.
    panel.add_patch(PathPatch(Path.make_compound_path(*squares), fill=False, edgecolor=theme().ink, linewidth=width))
