"""What `divprune eval` does: the rows of a suite, answered, scored, shown and recorded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from divprune.checkpoints import EMBEDDED, LoadedModel, load_model
from divprune.cli.failures import CommandError
from divprune.cli.screen import Screen, advance
from divprune.efficiency.shapes import model_shape
from divprune.errors import DivpruneError, MissingDependencyError
from divprune.evaluation.answer_log import AnswerLog
from divprune.evaluation.cider import cider_scores
from divprune.evaluation.resampling import CONFIDENCE, NUM_RESAMPLES
from divprune.evaluation.scenes.cases import KEEP_RATIOS, MATCHINGS, Case, every_method, suite_cases
from divprune.evaluation.scenes.fitprune_calibration import NUM_TRAINING_SCENES, recipe_tailor
from divprune.evaluation.scenes.suite import NOTICE, SCENES_PER_BATCH, Suite
from divprune.methods import FitPrune
from divprune.records import Record, check_record_place, provenance

RECORD_NAME = "eval-scenes"


@dataclass(frozen=True)
class EvalOptions:
    """The arguments of `divprune eval`, as typed."""

    suite: str
    methods: tuple[str, ...] | None
    keep_ratios: tuple[float, ...] | None
    equal: str
    limit: int
    output: Path
    resume: bool


def evaluate_and_show(options: EvalOptions, screen: Screen) -> None:
    """Answer what no earlier run has answered, print one row a case, and write the record.

    Raises:
        CommandError: an option cannot work.
    """
    _prepare_folder(options.output)
    origin = provenance()
    with screen.working("loading the embedded model"):
        loaded = load_model(EMBEDDED, torch.device("cpu"), "float32")
    log = AnswerLog(options.output, RECORD_NAME, _identity(origin))
    if not options.resume:
        log.delete()
        log = AnswerLog(options.output, RECORD_NAME, _identity(origin))
    if len(log):
        screen.note(f"an earlier run was interrupted: {len(log)} pieces of it are there and not repeated")
    suite = Suite(loaded.model, loaded.processor, options.limit, log)
    cases = _cases(options, suite, loaded, screen)
    with_cider = _has_cider(screen)
    with screen.counting("toy scenes", suite.num_units * len({case.key for case in cases if not case.refusal})) as bar:
        rows = suite.run(cases, lambda: advance(bar), with_cider)
    config = _config(options, loaded, with_cider)
    path = Record(RECORD_NAME, config, rows, origin | {"machine": provenance()["machine"]}).save(options.output)
    log.delete()
    _show(rows, screen)
    screen.show(NOTICE)
    screen.show(f"Record: {path}")
    screen.result({"suite": options.suite, "config": config, "rows": rows})


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--output {folder}: no such folder can be made ({error.strerror})") from None
    check_record_place(folder, RECORD_NAME)


def _cases(options: EvalOptions, suite: Suite, loaded: LoadedModel, screen: Screen) -> list[Case]:
    names = every_method() if options.methods is None else list(options.methods)
    matchings = [each for each in MATCHINGS if options.equal in (each, "both")]
    shape = model_shape(loaded.model.config)
    tailors = {FitPrune.name: recipe_tailor(loaded.model, loaded.processor, suite.workload)}
    try:
        with screen.working("planning"):
            return suite_cases(names, shape, suite.workload, options.keep_ratios or KEEP_RATIOS, matchings, tailors)
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


def _identity(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What answers depend on besides method, count and scenes."""
    return {"revision": origin["git_revision"], "versions": origin["versions"], "scenes_per_batch": SCENES_PER_BATCH}


def _has_cider(screen: Screen) -> bool:
    try:
        cider_scores(["a red circle"], ["a red circle"])
    except MissingDependencyError as error:
        screen.note(f"captions get no CIDEr: {error}")
        return False
    return True


def _config(options: EvalOptions, loaded: LoadedModel, with_cider: bool) -> dict[str, Any]:
    return {
        "notice": NOTICE,
        "model": loaded.name,
        "split": "test",
        "num_scenes": options.limit,
        "num_calibration_scenes": NUM_TRAINING_SCENES,
        "positions": "default",
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "confidence": CONFIDENCE,
        "num_resamples": NUM_RESAMPLES,
        "flop_accounting": "paper",
        "has_cider": with_cider,
    }


HEADER = ("method", "kept", "cost", "F1", "count", "color", "shape", "place", "CIDEr", "mean, 95 %")
LEGEND = (
    "kept: visual tokens of 256. cost: prefill FLOPs in percent (Eq. 5). F1: existence, as in POPE. CIDEr: captions, "
    "10 at best. The other columns are right answers in percent; mean: of all kinds but captions."
)


def _show(rows: Sequence[Mapping[str, Any]], screen: Screen) -> None:
    answered = [row for row in rows if row["refusal"] is None]
    at_equal_tokens = [row for row in answered if row["matching"] != "flops"]
    # Where tokens go before the language model, equal tokens are equal FLOPs.
    seen = {(row["method"], row["num_kept"]) for row in at_equal_tokens}
    others = [row for row in answered if (row["method"], row["num_kept"]) not in seen]
    screen.show(_table(at_equal_tokens))
    if others:
        screen.show("Other counts, at equal FLOPs:")
        screen.show(_table(others))
    for (method, refusal), where in _refused(rows).items():
        screen.show(f"refused: {method}{where}: {refusal}")
    screen.show(LEGEND)


def _refused(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Where each method was refused, by method and reason."""
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["refusal"] is not None:
            place = [] if row["keep_ratio"] is None else [f"{row['keep_ratio']:g} (equal {row['matching']})"]
            places.setdefault((row["method"], row["refusal"]), []).extend(place)
    return {key: f" at {', '.join(found)}" if found else "" for key, found in places.items()}


def _table(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(HEADER[0], style="bold", overflow="fold")
    for column in HEADER[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    return table


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    columns = ("existence_f1", "count", "color", "shape", "position")
    interval = f"{_number(row['mean_low_percent'])}-{_number(row['mean_high_percent'])}"
    return (
        row["method"],
        f"{row['num_kept']:.0f}",
        _number(row["flop_percent"]),
        *(_number(row[f"{column}_percent"]) for column in columns),
        _number(row["caption_cider"], 1),
        f"{_number(row['mean_percent'])} ({interval})",
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
