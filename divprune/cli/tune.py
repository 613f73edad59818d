"""`divprune tune`: find how far a model may be pruned on its own traffic."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divprune.cli.console import command
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
from divprune.errors import TuningError
from divprune.records import seconds_text

if TYPE_CHECKING:
    from divprune.experiments import Tuned

_HEADER = ("asked", "retained", "interval", "same", "tokens", "FLOPs", "KV", "TTFT")
_LEGEND = (
    "retained: what images tell the model that it still sees (1: all, 0: as if blind), by the likelihood of the "
    "unpruned model's own answers. same: answers that stay. FLOPs, KV: in percent of the unpruned prompt's. >: chosen."
)


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
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1)] = 64,
    cache_gb: Annotated[float, option("GIB", "Memory for encoded images.", min=0.0)] = 4.0,
    resume: Annotated[bool, typer.Option(help="Go on where an earlier run stopped.")] = True,
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
            resume=resume,
            device=device,
            dtype=dtype.value,
        )
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


def _show_answers(console: Any, found: "Tuned") -> None:
    answers = found.evidence.get("answers")
    if answers is None:
        return
    console.show(
        f"Answers on the confirming questions: {answers['same']['value']:.1%} the same, token F1 "
        f"{answers['token_f1']['value']:.3f}."
    )
    accuracy = answers.get("accuracy")
    if accuracy is not None:
        gain = accuracy["difference"]
        console.show(
            f"Right answers, of {accuracy['num_questions']} questions that have one: "
            f"{accuracy['unpruned']['value']:.1%} unpruned, {accuracy['pruned']['value']:.1%} pruned "
            f"({gain['value']:+.1%}; between {gain['low']:+.1%} and {gain['high']:+.1%})."
        )
    kinds = ", ".join(f"{row['kind']} {row['num_same']} of {row['num_questions']}" for row in found.kinds)
    console.show(f"By kind of question (guessed from its words), the same answers: {kinds}.")
