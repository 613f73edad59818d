"""All visual tokens of one image in the plane, and which of them are kept (the paper's Fig. 3a and 5)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.samples import sample_titled, token_colors, tokens
from divprune.figures.style import canvas, color, data_notice, headings, rows_of, theme
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("divprune", "fastv", "random")
PERPLEXITY, SEED = 30.0, 0


def draw(samples: Record) -> "Figure":
    """Draw a panel a method: every token in the colour of its patch, the kept ones large and ringed."""
    sample = rows_of(samples, "sample")[0]
    places = embedded(tokens(sample))
    colors = token_colors(sample)
    fidelities = {row["method"]: row.get("fidelity") for row in rows_of(samples, "method")}
    chosen = [found for found in (sample_titled(sample, method) for method in METHODS) if found is not None]
    figure, panels = canvas(3.5, 1, len(chosen), sharex=True, sharey=True)
    for panel, (method, indices) in zip(panels, chosen, strict=True):
        kept = np.zeros(len(places), dtype=bool)
        kept[indices] = True
        across, up = places.T
        panel.scatter(across[~kept], up[~kept], c=colors[~kept], s=13, alpha=0.75, linewidths=0)
        panel.scatter(across[kept], up[kept], c=colors[kept], s=38, edgecolors=theme().ink, linewidths=1.2)
        title = f"{marked(method, fidelities.get(method))}: {kept.sum()} of {len(kept)}"
        panel.set_title(title, color=color(method), weight="bold", loc="center")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set(visible=True, color=theme().grey, linewidth=0.6)
        panel.margins(0.06)
    headings(
        figure,
        "Where the kept tokens lie among all (t-SNE)",
        f"A dot is a token, in the colour of its patch; kept ones are ringed. {data_notice(samples, one=True)}.\n"
        f"{FIDELITY_LEGEND}",
    )
    return figure


def caption(samples: Record) -> str:
    """Say what is drawn."""
    return (
        f"t-SNE of the visual tokens of the first scene above (by cosine, perplexity {PERPLEXITY:g}), the kept ones "
        f"marked: the paper's Fig. 3a and 5 on a toy scene, at a keep ratio of {samples.config['keep_ratio']}."
    )


def embedded(visual_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lay tokens out in the plane: (M, d) to (M, 2), the same every time."""
    from sklearn.manifold import TSNE

    unit = visual_tokens / np.linalg.norm(visual_tokens, axis=1, keepdims=True)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=SEED, method="exact").fit_transform(unit)
    return np.asarray(layout, dtype=np.float64)
