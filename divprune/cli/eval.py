"""`divprune eval`: compare methods on data sets through lmms-eval, or on generated scenes."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from divprune.cli.console import Console, command
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
from divprune.fidelity import FIDELITY_LEGEND, marked

TOKENS = "tokens: visual tokens kept of an image or video, on average."
SCENES_HEADER = ("kept", "cost", "F1", "count", "color", "shape", "place", "CIDEr", "mean, 95 %")
SCENES_LEGEND = (
    "kept: visual tokens of {total:.0f}. cost: prefill FLOPs in percent (Eq. 5). F1: existence, as in POPE. CIDEr: "
    "captions, 10 at best. The other columns are right answers in percent; mean: of all kinds but captions."
)


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
            "What to run: scenes (built in, answered by the embedded model; no verdict on photographs), paper-image, "
            "paper-video or paper (the paper's benchmarks), or benchmarks by name: 'pope mmmu_val'.",
        ),
    ] = "scenes",
    model: Annotated[str | None, option("PATH", "Checkpoint directory or hub name.", "none; scenes: embedded")] = None,
    methods: Annotated[
        str | None,
        option(
            "NAMES",
            "Methods, separated by spaces: 'divprune random:seed=3'; unpruned always runs.",
            "divprune random; scenes: all",
        ),
    ] = None,
    keep_ratios: Annotated[
        list[str] | None,
        option(
            "FRACTIONS",
            "Fractions of the visual tokens that stay, separated by spaces.",
            "the paper's, 0.098 or 0.1; scenes: 0.5 0.25 0.098 0.05",
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
        int | None, option("N", "Only the first N questions of each benchmark; N scenes.", "all; scenes: 500", min=1)
    ] = None,
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
            how = how_to_prune(config, model, console)
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
        if suite.split() == ["scenes"]:
            others = {"visual_tokens": visual_tokens, "num_keep": num_keep}
            others |= {"scope": scope if scope is not ScopeName.item else None}
            others |= {"newlines": newlines if newlines is not NewlinesName.budget else None}
            _check_scenes(model, running | others)
            _scenes(console, names, ratios, equal or Matched.both, numbered, limit, output, resume is not False)
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
                debug=debug,
                **given_of(running),
            ),
        )
        scores = run_suite(options, console)
        if scores is not None:
            _show_suite(console, scores)


def _show_suite(console: Console, scores: Any) -> None:
    from divprune.experiments.comparison_text import LEGEND, reasons, shortfalls
    from divprune.experiments.tables import has_printed, metrics_line, score_lines

    found = scores.found
    paper = ("paper", "diff.") if has_printed(found) else ()
    numbers = ("ours, 95 %", *paper, "unpruned, 95 %", "p", "kept", "tokens")
    console.show(number_table(("method",), numbers, sections=score_lines(found, scores.results), folds=True))
    console.show(*shortfalls(found), *reasons(found), metrics_line(found), LEGEND, TOKENS)
    console.show(f"Records: {scores.results.folder}")
    console.result(scores.as_json())


def _check_scenes(model: str | None, others: Mapping[str, Any]) -> None:
    """Refuse what does not apply to generated scenes."""
    if model not in (None, "embedded"):
        raise ArgumentError(
            "`suite` scenes asks the embedded model, which was trained on such scenes and knows no others, got "
            f"`model` {model}; give that another suite, such as `suite` pope"
        )
    given = ", ".join(f"`{name}`" for name, value in others.items() if value is not None)
    if given:
        raise ArgumentError(f"{given}: not for `suite` scenes, which answers from the embedded model on the CPU")


def _scenes(
    console: Console,
    methods: tuple[str, ...] | None,
    keep_ratios: tuple[float, ...] | None,
    equal: Matched,
    positions: Literal["original", "compact"] | None,
    limit: int | None,
    output: Path | None,
    resume: bool,
) -> None:
    with console.working("starting"):
        from divprune.evaluation.scenes import SceneOptions, notice, run_scenes
    options = SceneOptions(
        methods=methods,
        keep_ratios=keep_ratios or SceneOptions.keep_ratios,
        matchings=tuple(each for each in SceneOptions.matchings if equal in (each, "both")),
        positions=positions,
        num_scenes=limit or SceneOptions.num_scenes,
        output=output or SceneOptions.output,
        resume=resume,
    )
    scores = run_scenes(options, console)
    answered = [row for row in scores.rows if row["refusal"] is None]
    at_equal_tokens = [row for row in answered if row["matching"] != "flops"]
    # Where tokens go before the LLM, equal tokens are equal FLOPs.
    seen = {(row["method"], row["num_kept"]) for row in at_equal_tokens}
    others = [row for row in answered if (row["method"], row["num_kept"]) not in seen]
    console.show(_scenes_table(at_equal_tokens))
    if others:
        console.show("Other counts, at equal FLOPs:", _scenes_table(others))
    for (method, refusal), where in _refused(scores.rows).items():
        console.show(f"refused: {method}{where}: {refusal}")
    console.show(
        SCENES_LEGEND.format(total=scores.rows[0]["num_kept"]), FIDELITY_LEGEND, notice(), f"Record: {scores.record}"
    )
    console.result({"suite": "scenes", "config": scores.config, "rows": scores.rows})


def _refused(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Locate where each method was refused, by method and reason."""
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["refusal"] is not None:
            place = [] if row["keep_ratio"] is None else [f"{row['keep_ratio']:g} (equal {row['matching']})"]
            places.setdefault((row["method"], row["refusal"]), []).extend(place)
    return {key: f" at {', '.join(found)}" if found else "" for key, found in places.items()}


def _scenes_table(rows: Iterable[Mapping[str, Any]]) -> Any:
    return number_table(("method",), SCENES_HEADER, map(_cells, rows))


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    columns = ("existence_f1", "count", "color", "shape", "position")
    interval = f"{_number(row['mean_low_percent'])}-{_number(row['mean_high_percent'])}"
    return (
        marked(row["method"], row["fidelity"]),
        f"{row['num_kept']:.0f}",
        _number(row["flop_percent"]),
        *(_number(row[f"{column}_percent"]) for column in columns),
        _number(row["caption_cider"], 1),
        f"{_number(row['mean_percent'])} ({interval})",
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
