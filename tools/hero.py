"""The image that README.md begins with, light or dark as the reader's page is."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMES = ("docs/figures/kept-on-image.png", "docs/figures/kept-on-image-dark.png")
WORDS = "An image, and the patches whose tokens each method keeps"


def hero(root: Path = ROOT) -> str:
    """HTML that shows the light image, and the dark one on dark pages, where it has been drawn."""
    light, dark = NAMES
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">' if (root / dark).is_file() else ""
    return f'<picture>{source}<img alt="{WORDS}" src="{light}"></picture>'
