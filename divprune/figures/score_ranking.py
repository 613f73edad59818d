"""The scores of all methods at one number of tokens, the best on top."""

from typing import TYPE_CHECKING

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.figures.record_views import SHARE, Row, at_share, reference, short_names
from divprune.figures.score_flops import SCORE
from divprune.figures.style import canvas, color, headings, look, theme, toy_notice
from divprune.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(suite: Record) -> "Figure":
    """Draw a line a method."""
    rows = at_share(suite)
    figure, (panel,) = canvas(1.6 + 0.19 * len(rows))
    _draw_ranking(panel, rows, suite)
    footer = f"{toy_notice(suite)}. Bars: {suite.config['confidence']:.0%} intervals.\n{FIDELITY_LEGEND}"
    headings(figure, f"All methods at {100 * SHARE:g} % of the tokens", footer)
    return figure


def caption(suite: Record) -> str:
    """Say what is drawn."""
    return (
        f"The score of `score-flops` on toy scenes, of all methods at a keep ratio of {SHARE} or with the number of "
        "tokens that they choose themselves. Open markers are those whose prefill costs more than the others', with "
        "the cost behind the name. Lines: the unpruned model, and the same model without the image."
    )


def _draw_ranking(panel: "Axes", rows: list[Row], suite: Record) -> None:
    usual = min(row["flop_percent"] for row in rows if row["matching"] == "tokens" and row["keep_ratio"] == SHARE)
    short, names = short_names(row["method"] for row in rows), []
    for place, row in enumerate(rows):
        dearer, name = row["flop_percent"] > 1.5 * usual, short[row["method"]]
        name = marked(name, row.get("fidelity"))
        names.append(f"{name} ({row['flop_percent']:.0f} %)" if dearer else name)
        _draw_row(panel, place, row, is_open=dearer)
    panel.axvline(reference(suite, "unpruned")["mean_percent"], color=theme().ink, linestyle="--", linewidth=1)
    panel.axvline(reference(suite, "picture withheld")["mean_percent"], color=theme().ink, linestyle=":", linewidth=1)
    panel.set_yticks(range(len(rows)), names, fontsize=9)
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        if look(row["method"]) is not None:
            label.set(color=color(row["method"]), weight="bold")
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.set_xlim(0, 104)
    panel.set_xlabel(SCORE)


def _draw_row(panel: "Axes", place: int, row: Row, is_open: bool) -> None:
    found, middle = look(row["method"]), row["mean_percent"]
    ink, marker = (theme().grey, "o") if found is None else (found.color, found.marker)
    ends = [[middle - row["mean_low_percent"]], [row["mean_high_percent"] - middle]]
    face = theme().ground if is_open else ink
    panel.errorbar(middle, place, xerr=ends, color=ink, marker=marker, markersize=5, mfc=face, linewidth=1.2)
