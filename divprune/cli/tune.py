"""`divprune tune`: find how far a model may be pruned on its own traffic."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divprune.cli.console import Console, command
from divprune.cli.shared_options import (
    Debug,
    Device,
    Dtype,
    Force,
    Json,
    PositionsOption,
    WeightsDtype,
    given_positions,
    keep_ratios_of,
    option,
)
from divprune.cli.tables import number_table
from divprune.errors import ArgumentError, TuningError
from divprune.records import seconds_text

if TYPE_CHECKING:
    from divprune.experiments import Tuned, TuneOptions

_HEADER = ("asked", "retained", "interval", "same", "tokens", "FLOPs", "KV", "TTFT")
_LEGEND = (
    "retained: what images tell the model that it still sees (1: all, 0: as if blind), by the likelihood of the "
    "unpruned model's own answers. same: answers that stay. FLOPs, KV: in percent of the unpruned prompt's. >: chosen."
)

SHOWN_CHANGES = 5


def tune_model(
    source: Annotated[
        Path, typer.Option("--input", metavar="PATH", help="A folder of images, or a JSONL file of questions.")
    ],
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Checkpoint directory or hub name; default: the embedded model."),
    ] = None,
    output: Annotated[Path, option("FILE", "Where the setting goes, for --config of other commands.")] = Path(
        "tuned.json"
    ),
    report: Annotated[Path | None, option("FILE", "Write an HTML report to this file.")] = None,
    prompt: Annotated[str | None, option("TEXT", "What to ask where the input does not say.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Read a folder's subfolders too.")] = False,
    limit: Annotated[int | None, option("N", "Only N questions, drawn at random.", "all", min=1)] = None,
    methods: Annotated[
        str, option("NAMES", "Methods, separated by spaces; random tokens always stand beside the one that is chosen.")
    ] = "divprune random",
    keep_ratios: Annotated[
        str | None, option("FRACTIONS", "Fractions of the visual tokens that are searched.", "0.02 to 0.7")
    ] = None,
    positions: PositionsOption = None,
    tolerance: Annotated[float, option("SHARE", "How much may be lost of what images tell the model.")] = 0.02,
    confidence: Annotated[float, option("SHARE", "Of the promise, and of all intervals.")] = 0.95,
    target_tokens: Annotated[
        float | None, option("N", "Instead: lose least with at most N visual tokens a question.")
    ] = None,
    target_kv_gb: Annotated[
        float | None, option("GIB", "Instead: lose least with a prompt's keys and values in GIB.")
    ] = None,
    target_ttft: Annotated[
        float | None, option("SECONDS", "Instead: lose least within SECONDS to the first token, measured here.")
    ] = None,
    unpruned_url: Annotated[
        str | None, option("URL", "Instead of a model: a running unpruned server, such as http://127.0.0.1:8000/v1.")
    ] = None,
    pruned_url: Annotated[
        str | None, option("URL", "The pruned server beside it: how far do their answers agree?")
    ] = None,
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1)] = 64,
    cache_gb: Annotated[float, option("GIB", "Room for encoded images.", min=0.0)] = 4.0,
    cache_folder: Annotated[
        Path | None, option("FOLDER", "Keep encoded images there, for the next run too.", "memory")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Begin anew, also where an earlier run stopped.")] = True,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the fewest visual tokens that keep what a model sees, on your questions; no labels needed."""
    with command(json, debug, force, source="--input") as console:
        with console.working("starting"):
            from divprune.experiments import TuneOptions
            from divprune.experiments import tune as find
        options = TuneOptions(
            source=source,
            model=model,
            output=output,
            report=report,
            prompt=prompt,
            recursive=recursive,
            limit=limit,
            methods=tuple(methods.split()),
            keep_ratios=TuneOptions.keep_ratios if keep_ratios is None else keep_ratios_of(keep_ratios),
            positions=given_positions(positions),
            tolerance=tolerance,
            confidence=confidence,
            target_tokens=target_tokens,
            target_kv_gb=target_kv_gb,
            target_ttft=target_ttft,
            max_new_tokens=max_new_tokens,
            cache_gb=cache_gb,
            cache_folder=cache_folder,
            resume=resume,
            device=device,
            dtype=dtype.value,
        )
        if unpruned_url is not None or pruned_url is not None:
            _compare(console, options, unpruned_url, pruned_url)
            return
        try:
            found = find(options, console, show_download=console.is_terminal)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on from what was found") from None
        if found is None:
            return
        console.show(number_table(("setting",), _HEADER, map(_cells, found.rows)), _LEGEND)
        _show_answers(console, found)
        console.show(*found.sentences)
        if report is not None:
            console.show(f"Report: {report} (open it in a browser)")
        if found.setting is not None:
            console.show(f"Setting: {output} (for --config of run, bench, eval, batch and serve)")
        console.result(found.as_json())
        if found.setting is None:
            raise TuningError("no setting keeps the promise, so none is written; see above")


def _compare(console: Console, options: "TuneOptions", unpruned_url: str | None, pruned_url: str | None) -> None:
    from divprune.experiments import ServerPair, compare_servers

    if unpruned_url is None or pruned_url is None:
        raise ArgumentError("give `unpruned_url` and `pruned_url` together: answers of the two servers are compared")
    asked = ("source", "prompt", "recursive", "limit", "max_new_tokens")
    changed = [each.name for each in fields(options) if getattr(options, each.name) != each.default]
    others = ", ".join(f"`{name}`" for name in changed if name not in asked)
    if others:
        raise ArgumentError(f"{others}: not for running servers, which prune as they were started; leave it out")
    pair = ServerPair(
        unpruned_url=unpruned_url, pruned_url=pruned_url, **{name: getattr(options, name) for name in asked}
    )
    found = compare_servers(pair, console)
    told = found.as_json()
    lines = [
        (name, "" if each["prompt_tokens"] is None else f"{each['prompt_tokens']:.0f}", seconds_text(each["seconds"]))
        for name, each in (("unpruned", told["unpruned"]), ("pruned", told["pruned"]))
    ]
    console.show(number_table(("server",), ("prompt tokens", "time"), lines))
    same = told["answers"]["same"]
    _show_agreement(console, told["answers"], f"{told['num_questions']} questions")
    console.show(f"With 95 % confidence at most {1 - same['low']:.1%} of the answers to such questions change.")
    for question, before, after in found.changed[:SHOWN_CHANGES]:
        console.show(f"{question.id}: {question.prompt!r}", f"  unpruned: {before!r}", f"  pruned:   {after!r}")
    if len(found.changed) > SHOWN_CHANGES:
        console.show(f"and {len(found.changed) - SHOWN_CHANGES} others that changed (`--json` has all)")
    console.result(told)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    name, interval = row["method"], ""
    if row["keep_ratio"] is not None:
        name = f"{'> ' if row['is_chosen'] else ''}{name} {row['keep_ratio']:g}"
        interval = f"{row['retention_low']:.3f}-{row['retention_high']:.3f}"
    return (
        name,
        str(row["num_questions"]),
        f"{row['retention']:.3f}",
        interval,
        f"{row['same_answers']:.0%}",
        f"{row['visual_tokens']:.0f}",
        _percent(row["flop_ratio"]),
        _percent(row["kv_ratio"]),
        seconds_text(row["ttft_seconds"]),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"


def _show_answers(console: Console, found: "Tuned") -> None:
    answers = found.evidence.get("answers")
    if answers is None:
        return
    _show_agreement(console, answers, "the confirming questions")
    kinds = ", ".join(f"{row['kind']} {row['num_same']} of {row['num_questions']}" for row in found.kinds)
    console.show(f"By kind of question (guessed from its words), the same answers: {kinds}.")


def _show_agreement(console: Console, answers: Mapping[str, Any], of: str) -> None:
    same, alike = answers["same"], answers["token_f1"]
    console.show(
        f"Answers on {of}: {same['value']:.1%} the same (between {same['low']:.1%} and {same['high']:.1%}), token F1 "
        f"{alike['value']:.3f}."
    )
    for score, what, digits in (("accuracy", "Right answers", ".1%"), ("cider", "CIDEr of descriptions", ".2f")):
        if score in answers:
            found, gain = answers[score], answers[score]["difference"]
            console.show(
                f"{what}, of {found['num_questions']} questions that have one: {found['unpruned']['value']:{digits}} "
                f"unpruned, {found['pruned']['value']:{digits}} pruned ({gain['value']:+{digits}}; between "
                f"{gain['low']:+{digits}} and {gain['high']:+{digits}})."
            )
