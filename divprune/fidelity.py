"""How near a method is to its paper, and the marks by which tables and figures say so."""

from typing import Literal

Fidelity = Literal["exact", "documented", "stand-in", "unverified"]
MARKS: dict[str, str] = {"exact": "", "documented": "*", "stand-in": "\u2020", "unverified": "\u2021"}
FIDELITY_LEGEND = (
    f"{MARKS['documented']} deviates from its paper as its docstring says; {MARKS['stand-in']} another input stands in "
    f"for the paper's; {MARKS['unverified']} not compared with its authors' code."
)


def marked(title: str, fidelity: str | None) -> str:
    """Return how tables and figures call a method: with the mark of its fidelity, None for what is of no paper."""
    return title if fidelity is None else title + MARKS[fidelity]
