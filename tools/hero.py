"""The image that README.md and the site begin with, light or dark as the reader's page is."""

from pathlib import Path

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
PREFERRED = ("answers", "kept-on-photograph", "kept-on-image")
"""Figures by name; the first that has been drawn is shown."""
WORDS = "Questions about images, with the answers from all visual tokens and from the kept ones"


def hero(folder: str, figures: Path = FIGURES) -> str:
    """HTML that shows the light figure, and on dark pages the dark one, where it has been drawn.

    Args:
        folder: where the figures are, as the page links to them.
        figures: where they are on disk.
    """
    name = next(name for name in PREFERRED if (figures / f"{name}.png").is_file())
    dark = f"{name}-dark.png"
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/{dark}">'
    drawn = source if (figures / dark).is_file() else ""
    return f'<picture>{drawn}<img alt="{WORDS}" src="{folder}/{name}.png"></picture>'
