"""`divprune eval`: compare methods on data sets through lmms-eval, or on generated scenes and videos."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from divprune.cli.console import Console, command
from divprune.cli.scenes import RETAINED, SCENE_SUITES, check_scenes, show_scenes
from divprune.cli.shared_options import (
    BackendOption,
    BaseUrl,
    BatchSize,
    CiderTokenizer,
    ConfigFile,
    Data,
    Debug,
    EgoschemaUrl,
    Force,
    Json,
    NewlinesName,
    NewlinesOption,
    Numbered,
    NumConcurrent,
    NumFrames,
    OtherDevice,
    OtherDtype,
    Resume,
    ScopeName,
    ScopeOption,
    ServedModel,
    SystemPrompt,
    TasksFolder,
    counts_of,
    given_of,
    given_positions,
    how_to_prune,
    keep_ratios_of,
    option,
)
from divprune.cli.tables import number_table
from divprune.errors import ArgumentError

TOKENS = "tokens: visual tokens kept of an image or video, on average."


class Matched(StrEnum):
    """What `--equal` takes."""

    tokens = "tokens"
    flops = "flops"
    both = "both"


def evaluate(
    suite: Annotated[
        str,
        option(
            "NAMES",
            "What to run: scenes or scenes-video (built in: generated images or videos, answered by an embedded model; "
            "no verdict on photographs or films), paper-image, paper-video or paper (the paper's benchmarks), or "
            "benchmarks by name: 'pope mmmu_val'.",
        ),
    ] = "scenes",
    model: Annotated[str | None, option("PATH", "Checkpoint directory or hub name.", "none; scenes: embedded")] = None,
    methods: Annotated[
        str | None,
        option(
            "NAMES",
            "Methods, separated by spaces: 'divprune random:seed=3'; unpruned always runs.",
            "divprune random; scenes: all; scenes-video: all for videos alone, and baselines",
        ),
    ] = None,
    keep_ratios: Annotated[
        list[str] | None,
        option(
            "FRACTIONS",
            "Fractions of the visual tokens that stay, separated by spaces.",
            "the paper's, 0.098 or 0.1; scenes: 0.5 0.25 0.098 0.05; scenes-video: 0.25 0.1 0.05",
            names=("--keep-ratios", "--keep-ratio"),
        ),
    ] = None,
    num_keep: Annotated[
        str | None,
        option("NUMBERS", "Visual tokens kept of each image, tile (--scope tile) or video: '128 64 32'.", "fractions"),
    ] = None,
    scope: ScopeOption = ScopeName.item,
    newlines: NewlinesOption = NewlinesName.budget,
    equal: Annotated[
        Matched | None,
        option("WHAT", "What is equal between methods: tokens, flops, or both.", "tokens; scenes: both"),
    ] = None,
    positions: Annotated[
        Numbered | None,
        option(
            "HOW",
            "Kept tokens keep their position numbers (original), or are numbered anew as in the paper, whose scores "
            "then stand beside (compact).",
            "original where the model can",
        ),
    ] = None,
    config: ConfigFile = None,
    visual_tokens: Annotated[
        int | None, option("M", "Visual tokens of an image, where --equal flops cannot tell from the config.", min=1)
    ] = None,
    limit: Annotated[
        int | None,
        option(
            "N", "Only the first N questions of each benchmark; N scenes.", "all; scenes: 500; scenes-video: 250", min=1
        ),
    ] = None,
    retention: Annotated[
        bool,
        typer.Option(
            "--retention",
            help="Tell as well how likely each row finds the unpruned model's answers; takes about twice the time.",
        ),
    ] = False,
    resume: Resume = None,
    backend: BackendOption = None,
    base_url: BaseUrl = None,
    served_model: ServedModel = None,
    num_concurrent: NumConcurrent = None,
    batch_size: BatchSize = None,
    device: OtherDevice = None,
    dtype: OtherDtype = None,
    num_frames: NumFrames = None,
    system_prompt: SystemPrompt = None,
    data: Data = None,
    tasks_folder: TasksFolder = None,
    cider_tokenizer: CiderTokenizer = None,
    egoschema_url: EgoschemaUrl = None,
    output: Annotated[Path | None, option("FOLDER", "Where records go.", "results/eval; scenes: results")] = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare pruning methods on benchmarks such as POPE and MMMU (lmms-eval), or on built-in toy scenes (offline)."""
    with command(json, debug, force) as console:
        names = None if methods is None else tuple(methods.split())
        ratios = None if not keep_ratios else keep_ratios_of(" ".join(keep_ratios))
        numbered = given_positions(positions)
        if config is not None:
            if names or ratios or numbered or num_keep:
                raise ArgumentError(
                    "`config` says how to prune; leave `methods`, `keep_ratios`, `num_keep` and `positions` out"
                )
            of_suite = "embedded-video" if suite.strip() == "scenes-video" else None
            how = how_to_prune(config, model or of_suite, console)
            names, ratios = tuple(dict.fromkeys((how["method"], "random"))), (how["keep_ratio"],)
            numbered = how["positions"]
        running: dict[str, Any] = {
            "backend": backend and backend.value,
            "base_url": base_url,
            "served_model": served_model,
            "num_concurrent": num_concurrent,
            "batch_size": batch_size,
            "device": device,
            "dtype": dtype and dtype.value,
            "num_frames": num_frames,
            "system_prompt": system_prompt,
            "data": data,
            "include_paths": tuple(tasks_folder) if tasks_folder else None,
            "tokenizer": cider_tokenizer and cider_tokenizer.value,
            "egoschema_url": egoschema_url,
        }
        if suite.strip() in SCENE_SUITES:
            others = {"visual_tokens": visual_tokens, "num_keep": num_keep}
            others |= {"scope": scope if scope is not ScopeName.item else None}
            others |= {"newlines": newlines if newlines is not NewlinesName.budget else None}
            check_scenes(suite.strip(), model, running | others)
            show_scenes(
                console,
                suite=suite.strip(),
                methods=names,
                keep_ratios=ratios,
                equal=(equal or Matched.both).value,
                positions=numbered,
                limit=limit,
                output=output,
                resume=resume is not False,
                retention=retention,
            )
            return
        with console.working("starting"):
            from divprune.experiments import HarnessOptions, SuiteOptions, run_suite
        matched: Any = equal and equal.value
        options = SuiteOptions(
            suite=suite,
            model=model,
            methods=names,
            keep_ratios=ratios,
            num_keeps=None if num_keep is None else counts_of(num_keep),
            scope=scope.value,
            newlines=newlines.value,
            equal=matched,
            positions=numbered,
            visual_tokens=visual_tokens,
            harness=HarnessOptions(
                output or Path("results/eval"),
                limit,
                resume=resume is not False,
                retention=retention,
                debug=debug,
                **given_of(running),
            ),
        )
        scores = run_suite(options, console)
        if scores is not None:
            _show_suite(console, scores)


def _show_suite(console: Console, scores: Any) -> None:
    from divprune.experiments.comparison_text import LEGEND, reasons, shortfalls
    from divprune.experiments.tables import has_printed, has_retention, metrics_line, score_lines

    found = scores.found
    paper = ("paper", "diff.") if has_printed(found) else ()
    with_retention = has_retention(found, scores.results)
    retained = ("retained",) if with_retention else ()
    numbers = ("ours, 95 %", *paper, "unpruned, 95 %", "p", "kept", "tokens", *retained)
    console.show(number_table(("method",), numbers, sections=score_lines(found, scores.results), folds=True))
    console.show(
        *shortfalls(found),
        *reasons(found),
        metrics_line(found),
        LEGEND,
        TOKENS,
        *([RETAINED] if with_retention else []),
    )
    console.show(f"Records: {scores.results.folder}")
    console.result(scores.as_json())
