"""`divprune methods`: list the pruning methods, or show one in full."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.cli.console import Console, command
from divprune.cli.shared_options import Debug, Json, complete_method
from divprune.cli.tables import listing

if TYPE_CHECKING:
    from divprune.methods import MethodInfo

FIDELITIES = {
    "exact": "the picks of the authors' public code, index for index",
    "documented": "deviates from its paper, as its description says",
    "stand-in": "something that cannot be had is replaced, as its description says",
    "unverified": "not compared with public code",
}
COUNTS = {
    "exact": "as many as --keep-ratio or --num-keep says",
    "at_most": "at most as many as --keep-ratio or --num-keep says",
    "adaptive": "as many as it finds for each image or video, unless --keep-ratio or --num-keep is given",
    "schedule": "as many as it says itself for each layer; --keep-ratio and --num-keep are left out",
}


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A method, to show it in full.", autocompletion=complete_method, show_default=False
        ),
    ] = None,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print BibTeX entries of the papers instead.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the pruning methods, built in and installed, or show one in full."""
    with command(json, debug) as console:
        from divprune.methods import available_methods, bibliography, method_info

        infos = available_methods() if name is None else [method_info(name)]
        if bibtex:
            entries = bibliography(info.paper for info in infos if info.paper)
            console.line(entries)
            console.result({"bibtex": entries})
        elif name is None:
            _show_all(console, infos)
        else:
            _show_one(console, infos[0])


def _show_all(console: Console, infos: "list[MethodInfo]") -> None:
    from divprune.serving import architectures_served

    rows = [(info.name, _year(info), _acts(info), info.fidelity, info.summary) for info in infos]
    console.show(listing(("method", "year", "acts", "fidelity", "what it keeps"), rows, cut_off=True))
    console.advise(
        "It acts before the LLM or inside it. Fidelity: how near it is to its paper.",
        "One in full: divprune methods NAME. One with a parameter: --method random:seed=3",
    )
    console.result({"rows": [info.as_json() | {"served": architectures_served(info.name)} for info in infos]})


def _show_one(console: Console, info: "MethodInfo") -> None:
    from divprune.serving import architectures_served

    served = architectures_served(info.name)
    console.show(info.name, *(f"\n{paragraph}" for paragraph in info.description), "")
    console.show(listing((), _facts(info, served)))
    if info.parameters:
        rows = [(name, str(value), info.meanings.get(name, "")) for name, value in info.parameters.items()]
        console.show(listing(("parameter", "default", "meaning"), rows))
    parameter = next((f":{name}=..." for name in info.parameters), "")
    console.advise(f"Use it: divprune run --method {info.name}{parameter}")
    console.result(info.as_json() | {"served": served, "description": list(info.description)})


def _facts(info: "MethodInfo", served: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Return what is known of a method besides its description, by name."""
    yield "acts", info.acts
    yield "prunes", " and ".join(f"{modality}s" for modality in info.modalities)
    yield "keeps", COUNTS[info.count] + (", the others merged in" if info.merges else "")
    layer = "" if info.vision_layer is None else f" (vision layer {info.vision_layer})"
    yield "needs", ", ".join(need.replace("_", " ") for need in info.needs) + layer or "nothing but the visual tokens"
    yield "question", "has a say" if info.is_query_aware else "has no say"
    yield (
        "fidelity",
        "a control, of no paper" if info.paper is None else f"{info.fidelity}: {FIDELITIES[info.fidelity]}",
    )
    if info.paper is not None:
        yield "paper", f"{info.paper.title}. {info.paper.citation}. {info.paper.url or ''}".rstrip()
    for modality, names in served.items():
        yield f"served, {modality}s", ", ".join(name.removesuffix("ForConditionalGeneration") for name in names)
    if not served:
        yield "served", "no"


def _year(info: "MethodInfo") -> str:
    return str(info.paper.year) if info.paper and info.paper.year else ""


def _acts(info: "MethodInfo") -> str:
    return info.acts.split()[0]
