"""`divprune run`: answer questions about images twice, with all visual tokens and with few of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from divprune.cli.console import command
from divprune.cli.help import MODEL, OUTPUT, PRUNING, RUNNING
from divprune.cli.shared_options import (
    AllowDownload,
    ConfigFile,
    Debug,
    Device,
    Dtype,
    EncoderSpec,
    Force,
    Json,
    KeepRatio,
    MethodName,
    ModelOption,
    NewlinesName,
    NewlinesOption,
    NumFramesSampled,
    Page,
    PositionsOption,
    ScopeName,
    ScopeOption,
    WeightsDtype,
    how_to_prune,
    keep_ratios_of,
    option,
)
from divprune.cli.tables import Sheet
from divprune.errors import printable
from divprune.records import seconds_text

if TYPE_CHECKING:
    from divprune.demo import AnswerPair, Summary

_COLUMNS = ("question", "of", "tokens", "kept", "prefill, all", "prefill", "selection", "answer, all", "answer")
"""For other programs."""


def run(
    model: ModelOption = None,
    image: Annotated[
        list[str] | None,
        option(
            "FILE", "An image, or a data: or http(s) URL; repeat for several. Default: bundled scenes.", panel=MODEL
        ),
    ] = None,
    page: Page = None,
    allow_download: AllowDownload = False,
    video: Annotated[
        list[Path] | None, option("FILE", "A video; repeat for several in one prompt.", panel=MODEL)
    ] = None,
    num_frames: NumFramesSampled = 8,
    prompt: Annotated[
        list[str] | None,
        option("TEXT", "What to ask; repeat for several questions, each asked by itself.", panel=MODEL),
    ] = None,
    method: MethodName = "divprune",
    keep_ratio: KeepRatio = None,
    num_keep: Annotated[
        int | None, option("N", "Visual tokens kept of each image or video, instead of a fraction.", panel=PRUNING)
    ] = None,
    scope: ScopeOption = ScopeName.item,
    newlines: NewlinesOption = NewlinesName.budget,
    encoder: EncoderSpec = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    compare: Annotated[
        bool, typer.Option(help="Leave out the answers from all visual tokens.", rich_help_panel=RUNNING)
    ] = True,
    report: Annotated[
        Path | None, option("FILE", "Write an HTML report, images included, to this file.", panel=OUTPUT)
    ] = None,
    report_ratios: Annotated[
        str | None,
        option(
            "FRACTIONS",
            "Further fractions that the report can be switched to; random tokens stand beside each.",
            "0.05 0.25 for the embedded model, else none",
            panel=OUTPUT,
        ),
    ] = None,
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1, panel=RUNNING)] = 64,
    repeats: Annotated[int, option("N", "Timed runs of each prompt, after a warm-up.", min=1, panel=RUNNING)] = 5,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask about images twice: with all visual tokens, and with few of them."""
    with command(json, debug, force) as console:
        from divprune.demo import DemoOptions, run_demo

        how = how_to_prune(
            config,
            model,
            console,
            method=method,
            keep_ratio=keep_ratio,
            num_keep=num_keep,
            positions=positions,
            encoder=encoder,
        )
        options = DemoOptions(
            model=model,
            images=tuple(image or ()),
            page=page,
            allow_download=allow_download,
            videos=tuple(video or ()),
            num_frames=num_frames,
            prompts=tuple(prompt or ()),
            **how,
            scope=scope.value,
            newlines=newlines.value,
            encoder=encoder,
            compare=compare,
            report=report,
            report_ratios=None if report_ratios is None else keep_ratios_of(report_ratios, "report_ratios"),
            max_new_tokens=max_new_tokens,
            repeats=repeats,
            device=device,
            dtype=dtype.value,
        )
        demo = run_demo(options, console, show_download=console.is_terminal)
        if compare:
            console.advise("Every question twice: above from all visual tokens, below from the kept ones.")
        console.show(_answers_table(demo.rows), _summary_text(demo.summary))
        advice = "Add --report FILE.html to see which patches were kept."
        console.show(f"Report: {report} (open it in a browser)" if report else advice)
        console.result(demo.as_json())


def _answers_table(rows: "Sequence[AnswerPair]") -> Sheet:
    """On a terminal two lines a question, all visual tokens above and the kept ones below."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("question", ratio=4, min_width=18, overflow="fold")
    for column in ("tokens", "prefill", "selection"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("answer", ratio=5, min_width=14, overflow="fold")
    for row in rows:
        _add_question(table, row)
    return Sheet(table, [_COLUMNS, *map(_line, rows)])


def _line(row: "AnswerPair") -> tuple[str, ...]:
    whole = row.prefill_unpruned
    return (
        row.example.prompt,
        _media(row),
        str(row.pruned.num_visual_tokens),
        str(row.pruned.num_kept),
        "" if whole is None else seconds_text(whole.median),
        seconds_text(row.prefill.median),
        seconds_text(row.selection_seconds),
        row.answer_unpruned or "",
        row.answer,
    )


def _media(row: "AnswerPair") -> str:
    return ", ".join(medium.name for medium in row.example.media)


def _add_question(table: Table, row: "AnswerPair") -> None:
    names = Text(printable(_media(row)), style="dim", overflow="ellipsis", no_wrap=True)
    question = row.example.prompt
    kept, total = Text(str(row.pruned.num_kept), style="bold"), str(row.pruned.num_visual_tokens)
    prefill, selection = seconds_text(row.prefill.median), seconds_text(row.selection_seconds)
    if row.prefill_unpruned is None or row.answer_unpruned is None:
        table.add_row(question, kept, prefill, selection, row.answer)
        table.add_row(names, f"of {total}", "", "", "", end_section=True)
        return
    style = "green" if row.same_answer else "yellow"
    table.add_row(question, total, seconds_text(row.prefill_unpruned.median), "", row.answer_unpruned)
    table.add_row(names, kept, prefill, selection, Text(printable(row.answer), style), end_section=True)


def _summary_text(summary: "Summary") -> Text:
    """Tell how much shorter, how much faster, how many answers stayed the same, and how many were right."""
    total = len(summary.rows)
    parts = [f"{summary.kept_fraction:.1%} of the visual tokens kept"]
    if summary.num_encoded < summary.num_visual_tokens:
        parts[0] += f" ({summary.num_encoded / summary.num_visual_tokens:.1%} encoded)"
    if summary.speedup is not None:
        parts.append(f"prefill {summary.speedup:.2f} x as fast")
        parts.append(f"same answer to {summary.num_same} of {total}")
    lines = ["; ".join(parts) + "."]
    if summary.answers_known and summary.compared:
        right, unpruned = summary.num_right, summary.num_right_unpruned
        random = f", {summary.num_right_random} from as many random ones" if summary.beside_random else ""
        lines.append(f"Right answers: {unpruned} of {total} from all tokens, {right} from the kept ones{random}.")
    return Text("\n".join(lines), style="bold")
