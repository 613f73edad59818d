"""`divprune reproduce`: the paper's tables and figures as plans and runs. Heavy imports wait inside."""

from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.arguments import Debug, Dtype, Json
from divprune.cli.failures import one_line_errors
from divprune.cli.harness_arguments import (
    BatchSize,
    CiderTokenizer,
    Data,
    EgoschemaUrl,
    LocalBackend,
    NumFrames,
    Resume,
    Running,
    SystemPrompt,
    shares_of,
)
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="table1, table2, table3, ablations, figure1, figure3, figure4, figure5 or all."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan: cells, samples, FLOPs, GPU hours, what they need.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH", show_default="the paper's", help="Another checkpoint, or 'embedded'."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAMES", show_default="the table's", help="Data sets, separated by spaces: 'pope gqa'."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="the table's",
            help="Methods, separated by spaces; unpruned and random always run. Others than the table's are added.",
        ),
    ] = None,
    keep_ratios: Annotated[
        str | None,
        typer.Option(metavar="SHARES", show_default="the paper's", help="Shares kept, separated by spaces."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default="all", help="Samples of each data set.")
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where records go, and are found if they are there already.")
    ] = Path("results/paper"),
    gpu_tflops: Annotated[
        float | None,
        typer.Option(
            metavar="X", show_default="50, a V100", help="What a GPU does in a prefill: 125 for an A100, 400 an H100."
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="N", min=1, help="GPUs that share the work, for the estimate.")] = 1,
    visual_tokens: Annotated[
        int | None,
        typer.Option(metavar="M", min=1, help="Visual tokens of a picture, where --model's config does not tell."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures for figure3 and figure5. Default: toy scenes.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where it runs: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(metavar="NAME", help="Weights as auto, float32, float16 or bfloat16.")
    ] = Dtype.auto,
    backend: LocalBackend = None,
    batch_size: BatchSize = None,
    num_frames: NumFrames = None,
    system_prompt: SystemPrompt = None,
    data: Data = None,
    resume: Resume = None,
    cider_tokenizer: CiderTokenizer = None,
    egoschema_url: EgoschemaUrl = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Reproduce a table or figure of the paper, or show what that would take."""
    with one_line_errors(debug), quiet_logs(debug):
        screen = Screen(json)
        running = Running(
            backend=backend and backend.value,
            batch_size=batch_size,
            num_frames=num_frames,
            system_prompt=system_prompt,
            data=data,
            tokenizer=cider_tokenizer and cider_tokenizer.value,
            egoschema_url=egoschema_url,
        )
        with screen.working("starting"):
            from divprune.cli.reproduce import ReproduceOptions
            from divprune.cli.reproduce import reproduce as plan_and_run
        options = ReproduceOptions(
            name=name,
            dry_run=dry_run,
            model=model,
            tasks=None if tasks is None else tuple(tasks.split()),
            methods=None if methods is None else tuple(methods.split()),
            keep_ratios=None if keep_ratios is None else shares_of(keep_ratios),
            limit=limit,
            output=output,
            gpu_tflops=gpu_tflops,
            gpus=gpus,
            visual_tokens=visual_tokens,
            images=images,
            device=device,
            dtype=dtype.value,
            running=running,
            resume=resume is not False,
            debug=debug,
        )
        with quiet_progress_bars(debug):
            plan_and_run(options, screen)
