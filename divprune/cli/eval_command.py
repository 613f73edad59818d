"""`divprune eval`: accuracy under pruning. Heavy imports wait inside."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.arguments import Debug, Json
from divprune.cli.eval_choice import EvalArguments, check_scenes, shares_typed
from divprune.cli.failures import one_line_errors
from divprune.cli.harness_arguments import (
    Backend,
    BaseUrl,
    BatchSize,
    CiderTokenizer,
    Data,
    Device,
    EgoschemaUrl,
    NumConcurrent,
    NumFrames,
    Resume,
    Running,
    ServedModel,
    SystemPrompt,
    TasksFolder,
    WeightsDtype,
)
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars

NUM_SCENES = 500


class Matched(StrEnum):
    """What `--equal` takes."""

    tokens = "tokens"
    flops = "flops"
    both = "both"


def evaluate(
    suite: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="scenes (toy scenes, answered by the embedded toy model); paper-image, paper-video or paper; or data "
            "sets of the paper by key and tasks of lmms-eval, separated by spaces: 'pope mmmu_val'.",
        ),
    ] = "scenes",
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH", show_default="none; scenes: embedded", help="Checkpoint directory or hub name."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="divprune random; scenes: all",
            help="Methods, separated by spaces: 'divprune random:seed=3'; unpruned always runs.",
        ),
    ] = None,
    keep_ratios: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-ratios",
            "--keep-ratio",
            metavar="SHARES",
            show_default="the paper's, 0.098 or 0.1; scenes: 0.5 0.25 0.098 0.05",
            help="Shares kept, separated by spaces.",
        ),
    ] = None,
    equal: Annotated[
        Matched | None,
        typer.Option(
            metavar="WHAT",
            show_default="tokens; scenes: both",
            help="Compare at equal tokens, at equal flops, or both.",
        ),
    ] = None,
    visual_tokens: Annotated[
        int | None, typer.Option(metavar="M", min=1, help="Visual tokens of a picture, where equal flops cannot tell.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="all; scenes: 500", help="Questions of each data set; scenes."),
    ] = None,
    resume: Resume = None,
    backend: Backend = None,
    base_url: BaseUrl = None,
    served_model: ServedModel = None,
    num_concurrent: NumConcurrent = None,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: WeightsDtype = None,
    num_frames: NumFrames = None,
    system_prompt: SystemPrompt = None,
    data: Data = None,
    tasks_folder: TasksFolder = None,
    cider_tokenizer: CiderTokenizer = None,
    egoschema_url: EgoschemaUrl = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default="results/eval; scenes: results", help="Where records go."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare methods: on data sets through lmms-eval, or on toy scenes (no download, no verdict on photographs)."""
    with one_line_errors(debug), quiet_logs(debug):
        running = Running(
            backend=backend and backend.value,
            base_url=base_url,
            served_model=served_model,
            num_concurrent=num_concurrent,
            batch_size=batch_size,
            device=device,
            dtype=dtype and dtype.value,
            num_frames=num_frames,
            system_prompt=system_prompt,
            data=data,
            include_paths=tuple(tasks_folder) if tasks_folder else None,
            tokenizer=cider_tokenizer and cider_tokenizer.value,
            egoschema_url=egoschema_url,
        )
        typed = EvalArguments(
            suite=suite,
            model=model,
            methods=None if methods is None else tuple(methods.split()),
            keep_ratios=shares_typed(keep_ratios),
            equal=equal and equal.value,
            visual_tokens=visual_tokens,
            limit=limit,
            resume=resume is not False,
            output=output,
            running=running,
            debug=debug,
        )
        with quiet_progress_bars(debug):
            (_scenes if typed.is_scenes else _suite)(typed, Screen(json))


def _suite(typed: EvalArguments, screen: Screen) -> None:
    with screen.working("starting"):
        from divprune.cli.eval_suites import evaluate_suite
    evaluate_suite(typed, screen)


def _scenes(typed: EvalArguments, screen: Screen) -> None:
    check_scenes(typed)
    with screen.working("starting"):
        from divprune.cli.eval import EvalOptions, evaluate_and_show
    options = EvalOptions(
        suite=typed.suite.strip(),
        methods=typed.methods,
        keep_ratios=typed.keep_ratios,
        equal=typed.equal or Matched.both.value,
        limit=typed.limit or NUM_SCENES,
        output=typed.output or Path("results"),
        resume=typed.resume,
    )
    evaluate_and_show(options, screen)
