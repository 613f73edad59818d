"""`divprune reproduce`: the paper's tables and figures as plans and runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divprune.cli.console import Console, command
from divprune.cli.shared_options import (
    BatchSize,
    CiderTokenizer,
    Data,
    Debug,
    Device,
    Dtype,
    EgoschemaUrl,
    Force,
    Json,
    LocalBackend,
    NewlinesName,
    NewlinesOption,
    NumFrames,
    Resume,
    ScopeName,
    ScopeOption,
    SystemPrompt,
    WeightsDtype,
    given_of,
    keep_ratios_of,
    option,
)
from divprune.cli.tables import number_table

if TYPE_CHECKING:
    from divprune.experiments import Plan, Reproduction


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="table1, table2, table3, ablations, llava-next, figure1, figure3, figure4, figure5 or all.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan: runs, samples, FLOPs, GPU hours, what they need.")
    ] = False,
    model: Annotated[str | None, option("PATH", "Another checkpoint, or 'embedded'.", "the paper's")] = None,
    tasks: Annotated[str | None, option("NAMES", "Data sets, separated by spaces: 'pope gqa'.", "the table's")] = None,
    methods: Annotated[
        str | None,
        option(
            "NAMES",
            "Methods, separated by spaces; unpruned and random always run. Others than the table's are added.",
            "the table's",
        ),
    ] = None,
    keep_ratios: Annotated[
        str | None, option("FRACTIONS", "Fractions of the visual tokens that stay.", "the paper's")
    ] = None,
    scope: ScopeOption = ScopeName.item,
    newlines: NewlinesOption = NewlinesName.budget,
    limit: Annotated[int | None, option("N", "Samples of each data set.", "all", min=1)] = None,
    output: Annotated[Path, option("FOLDER", "Where records go, and are found if they are there already.")] = Path(
        "results/paper"
    ),
    gpu_tflops: Annotated[
        float | None,
        option("X", "What a GPU does in a prefill: 125 for an A100, 400 an H100.", "50, a V100"),
    ] = None,
    gpus: Annotated[int, option("N", "GPUs that share the work, for the estimate.", min=1)] = 1,
    visual_tokens: Annotated[
        int | None, option("M", "Visual tokens of an image, where --model's config does not tell.", min=1)
    ] = None,
    images: Annotated[Path | None, option("FOLDER", "Images for figure3 and figure5. Default: toy scenes.")] = None,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    backend: LocalBackend = None,
    batch_size: BatchSize = None,
    num_frames: NumFrames = None,
    system_prompt: SystemPrompt = None,
    data: Data = None,
    resume: Resume = None,
    cider_tokenizer: CiderTokenizer = None,
    egoschema_url: EgoschemaUrl = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Reproduce a table or figure of the paper, or show what that would take."""
    with command(json, debug, force, images="--images", name="NAME") as console:
        ratios = None if keep_ratios is None else keep_ratios_of(keep_ratios)
        with console.working("starting"):
            from divprune.experiments import HarnessOptions, ReproduceOptions, plan_paper, run_paper
        running: dict[str, Any] = {
            "backend": backend and backend.value,
            "batch_size": batch_size,
            "num_frames": num_frames,
            "system_prompt": system_prompt,
            "data": data,
            "tokenizer": cider_tokenizer and cider_tokenizer.value,
            "egoschema_url": egoschema_url,
        }
        harness = HarnessOptions(
            output,
            limit,
            device=device,
            dtype=dtype.value,
            resume=resume is not False,
            debug=debug,
            **given_of(running),
        )
        options = ReproduceOptions(
            name=name,
            model=model,
            tasks=None if tasks is None else tuple(tasks.split()),
            methods=None if methods is None else tuple(methods.split()),
            keep_ratios=ratios,
            scope=scope.value,
            newlines=newlines.value,
            gpu_tflops=gpu_tflops,
            gpus=gpus,
            visual_tokens=visual_tokens,
            images=images,
            harness=harness,
        )
        plan = plan_paper(options, console)
        if dry_run:
            _show_plan(console, plan)
            return
        done = run_paper(plan, options, console)
        if done is not None:
            _show_tables(console, done)


def _show_plan(console: Console, plan: "Plan") -> None:
    """Print what would be run and what it takes."""
    from divprune.experiments import plan_text

    rows, sets, throughput = plan_text.ROW_HEADER, plan_text.DATA_SET_HEADER, plan.throughput
    for table in plan.tables:
        lines = plan_text.row_lines(table.entries, table.runs, throughput)
        console.show(table.title, number_table(rows[:2], rows[2:], lines))
        console.show(*plan_text.refusals(table.entries), "")
    console.show("By data set:")
    console.show(number_table(sets[:2], sets[2:], plan_text.data_set_lines(plan.runs, throughput)))
    for line in plan_text.preparations(plan.runs):
        console.line(line)
    console.show(*plan_text.assumptions(plan.runs), *plan_text.totals(plan.runs, throughput, plan.gpus))
    console.result(plan.as_json())


def _show_tables(console: Console, done: "Reproduction") -> None:
    """Print each table beside the paper's numbers."""
    from divprune.experiments.comparison_text import LEGEND, reasons, sections, shortfalls

    numbers = ("ours, 95 %", "paper", "diff.", "unpruned, 95 %", "p", "kept")
    for each in done.tables:
        lines = sections(each.found, is_short=True)
        console.show(each.table.title, number_table(("row",), numbers, sections=lines, folds=True))
        console.show(*shortfalls(each.found), *reasons(each.found), LEGEND, f"Table: {each.page}")
    console.show(*(f"Figure: {file}" for file in done.files))
    console.result(done.as_json())
