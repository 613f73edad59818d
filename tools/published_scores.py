"""What other papers measured of DivPrune and of their own methods on photographs: percent of the unpruned mean.

Compare within a row only: each is one paper's own runs, over its own data sets.
"""

from dataclasses import dataclass

from divprune.methods.registry import built_in
from tools.markdown import markdown_table


@dataclass(frozen=True)
class PublishedRow:
    """One paper's scores on LLaVA-1.5-7B, whose images are 576 tokens.

    Attributes:
        source: the method of the paper, as this package names it.
        num_kept: visual tokens kept.
        percent: by method, of the unpruned mean.
    """

    source: str
    num_kept: int
    percent: dict[str, float]


NUM_TOKENS = 576
ROWS = (
    PublishedRow("mmtok", 192, {"divprune": 98.0, "mmtok": 98.7}),
    PublishedRow("mmtok", 128, {"divprune": 96.9, "mmtok": 97.8}),
    PublishedRow("mmtok", 64, {"divprune": 94.8, "mmtok": 96.6}),
    PublishedRow("tops", 128, {"divprune": 96.7, "scope": 97.8, "tops": 98.3}),
    PublishedRow("tops", 64, {"divprune": 93.7, "scope": 96.0, "tops": 97.1}),
    PublishedRow("tops", 32, {"divprune": 90.2, "scope": 93.5, "tops": 94.6}),
    PublishedRow("eadp", 128, {"divprune": 96.3, "cdpruner": 97.4, "eadp": 97.8}),
    PublishedRow("eadp", 64, {"divprune": 93.8, "cdpruner": 95.4, "eadp": 95.8}),
    PublishedRow("eadp", 32, {"divprune": 90.0, "cdpruner": 93.1, "eadp": 93.8}),
)


def published_table() -> str:
    """Every row, with a link to its paper."""
    papers = {method.name: method.paper for method in built_in()}
    cells = []
    for row in ROWS:
        paper = papers[row.source]
        others = ", ".join(f"`{name}` {percent}" for name, percent in row.percent.items() if name != "divprune")
        kept = f"{row.num_kept} ({row.num_kept / NUM_TOKENS:.3f})"
        cells.append((f"[{row.source} ({paper.year})]({paper.url})", kept, f"{row.percent['divprune']}", others))
    return markdown_table(("measured in the paper of", "kept of 576", "divprune", "others"), cells, numbers_from=4)
