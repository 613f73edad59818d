"""Figures, drawn from result records and from nothing else: no model, no torch.

matplotlib (extra `viz`) is imported when something is drawn.
"""

from divprune.figures.book import Drawing, Drawn, draw_figures
from divprune.figures.catalog import FIGURES, FigureSpec, Sources
from divprune.figures.gallery import Gallery, gallery_page, write_figures

__all__ = [
    "FIGURES",
    "Drawing",
    "Drawn",
    "FigureSpec",
    "Gallery",
    "Sources",
    "draw_figures",
    "gallery_page",
    "write_figures",
]
