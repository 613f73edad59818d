"""`divprune methods` and `divprune families`: what there is."""

from typing import Any

from divprune.cli.screen import Screen
from divprune.cli.tables import listing
from divprune.huggingface import supported_families
from divprune.methods import MethodInfo, available_methods


def show_methods(screen: Screen) -> None:
    """Print every pruning method with its parameters and paper."""
    infos = available_methods()
    rows = [(info.name, _parameters(info), f"{info.summary} {_citation(info)}".strip()) for info in infos]
    screen.show(listing(("method", "parameters", "what it keeps"), rows))
    screen.show("Set parameters after a colon: --method random:seed=3")
    screen.result({"rows": [_method_row(info) for info in infos]})


def show_families(screen: Screen) -> None:
    """Print every supported model family with an example checkpoint."""
    families = supported_families()
    rows = [(family.name, ", ".join(family.kinds), family.positions, family.example) for family in families]
    screen.show(listing(("family", "takes", "positions", "for example"), rows))
    screen.result(
        {
            "rows": [
                {
                    "name": family.name,
                    "kinds": list(family.kinds),
                    "positions": family.positions,
                    "example": family.example,
                }
                for family in families
            ]
        }
    )


def _method_row(info: MethodInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "summary": info.summary,
        "acts": info.acts,
        "parameters": info.parameters,
        "paper": info.paper.url if info.paper else None,
    }


def _parameters(info: MethodInfo) -> str:
    return ", ".join(f"{name}={value}" for name, value in info.parameters.items())


def _citation(info: MethodInfo) -> str:
    return f"({info.paper.citation})" if info.paper else ""
