"""`divprune methods` and `divprune families`: list what there is."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divprune.cli.console import command
from divprune.cli.shared_options import Debug, Json
from divprune.cli.tables import listing

if TYPE_CHECKING:
    from divprune.huggingface.families.support import FamilySupport
    from divprune.methods import MethodInfo


FIDELITY = (
    "Fidelity: exact (the picks of the authors' code), documented (a deviation that the docstring names), stand-in (an "
    "input we cannot have), unverified (not compared with public code)"
)


def methods(
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print BibTeX entries of the papers instead.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the pruning methods, built in and installed."""
    with command(json, debug) as console:
        from divprune.methods import available_methods, bibliography
        from divprune.serving import architectures_served

        infos = available_methods()
        if bibtex:
            entries = bibliography(info.paper for info in infos if info.paper)
            console.line(entries)
            console.result({"bibtex": entries})
            return
        served = {info.name: architectures_served(info.name) for info in infos}
        rows = [
            (
                info.name,
                _year(info),
                _acts(info),
                _yes(info.is_query_aware),
                _yes(info.merges),
                _keeps(info, served[info.name]),
            )
            for info in infos
        ]
        console.show(listing(("method", "year", "acts", "query-aware", "merges", "what it keeps"), rows))
        console.show("Set parameters after a colon: --method random:seed=3")
        console.show(
            "Served: by `divprune serve` and `divprune batch`, in vLLM; --json names the models' architectures"
        )
        console.show(FIDELITY)
        console.result({"rows": [info.as_json() | {"served": served[info.name]} for info in infos]})


def families(
    refused: Annotated[bool, typer.Option("--refused", help="Also list what cannot be pruned, and why.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the model families that can be pruned, and which ways of calling them."""
    with command(json, debug) as console:
        from divprune.huggingface import supported_families
        from divprune.huggingface.families.support import load_support, support_tables
        from divprune.huggingface.families.unsupported import refused_classes

        support = load_support()
        positions = {family.name: family.positions for family in supported_families()}
        rows = [
            (family.name, ", ".join(family.kinds), positions[family.model_type], family.example)
            for family in support.families
        ]
        console.show(listing(("family", "takes", "positions", "for example"), rows))
        for table in support_tables(support):
            console.show(f"{table.title} (transformers {support.newest})")
            console.show(listing(("family", *table.modes), [(name, *cells) for name, cells in table.rows]))
            for number, note in enumerate(table.notes, start=1):
                console.show(f"({number}) {note}")
        result: dict[str, Any] = {
            "rows": [_family_row(family, positions[family.model_type]) for family in support.families]
        }
        if refused:
            classes = refused_classes()
            console.show(listing(("refused", "because"), [(each.name, each.reason) for each in classes]))
            result["refused"] = [asdict(each) for each in classes]
        console.result(result)


def _family_row(family: "FamilySupport", positions: str) -> dict[str, Any]:
    return asdict(family) | {"kinds": list(family.kinds), "positions": positions}


def _keeps(info: "MethodInfo", served: dict[str, list[str]]) -> str:
    """Return what a method keeps, its paper, how near it is to it, its needs and parameters, and its served items."""
    parts = [info.summary if info.paper is None else f"{info.summary} ({info.paper.citation})"]
    parts.append(f"Fidelity: {info.fidelity}.")
    if info.needs:
        layer = "" if info.vision_layer is None else f" (vision layer {info.vision_layer})"
        parts.append("Needs " + ", ".join(need.replace("_", " ") for need in info.needs) + f"{layer}.")
    if info.parameters:
        parts.append("Parameters: " + ", ".join(f"{name}={value}" for name, value in info.parameters.items()) + ".")
    parts.append(f"Served for {' and '.join(f'{kind}s' for kind in served)}." if served else "Not served.")
    return "\n".join(parts)


def _year(info: "MethodInfo") -> str:
    return str(info.paper.year) if info.paper and info.paper.year else ""


def _acts(info: "MethodInfo") -> str:
    return info.acts.split()[0]


def _yes(value: bool) -> str:
    return "yes" if value else ""
