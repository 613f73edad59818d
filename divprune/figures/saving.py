"""Render a figure to the bytes of its files: the same records give the same bytes, whenever they are drawn."""

import io
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from divprune.outputs import FileKind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
FIGURE = FileKind("figure of ours", "one in another folder", rb"tEXtSource\0[^\0]*\.json|<dc:title>divprune</dc:title>")
"""PNG files name the record that they were drawn from, SVG files their maker."""


def rendered(figure: "Figure", title: str, stamp: str) -> dict[str, bytes]:
    """Return a figure as PNG and SVG, by format.

    Args:
        figure: what was drawn.
        title: kept in the files.
        stamp: which records it shows; kept in the files.
    """
    drawn = {name: io.BytesIO() for name in FORMATS}
    figure.savefig(drawn["png"], format="png")
    words = {"Title": title, "Source": stamp}
    figure.savefig(drawn["svg"], format="svg", metadata={"Date": None, "Creator": "divprune", **words})
    return {"png": _smaller(drawn["png"], words), "svg": drawn["svg"].getvalue()}


def _smaller(png: io.BytesIO, words: dict[str, str]) -> bytes:
    """Leave out the transparency that no figure has, and name the records."""
    image = Image.open(png, formats=("PNG",)).convert("RGB")
    info, buffer = PngInfo(), io.BytesIO()
    for key, text in words.items():
        info.add_text(key, text)
    image.save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()
