"""Tabulate a comparison on data sets: scores beside the unpruned ones and, where it has them, the paper's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from divprune.evaluation.datasets import DATA_SETS
from divprune.evaluation.results import Results
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.evaluation.statistics import Estimate
from divprune.experiments.comparison import ENDS, Compared, Result
from divprune.experiments.comparison_text import sections
from divprune.experiments.paper.columns import IMAGE_COLUMNS, VIDEO_COLUMNS, Column
from divprune.experiments.paper.presets import PRESETS, Entry, entries
from divprune.experiments.paper.rows import TableRow
from divprune.experiments.paper.settings import Setting
from divprune.experiments.plan import AS_IN_LMMS_EVAL, PlannedRun
from divprune.experiments.subjects import architecture_of, named_subject, paper_subject

EVAL = "eval"
_PRINTED_IN = ("table1", "table2", "table3", "ablations")
_PAPER = slice(2, 4)
"""Where the paper's number and the difference stand in a line."""
_SHARED = ("num_samples", "num_frames", "system_prompt", "dataset", "tokenizer", "judge", "egoschema_url")
_RUN_FIELDS = ("task", "method", "keep_ratio", "num_keep")


def entries_of(planned: Sequence[PlannedRun], results: Results) -> list[Entry]:
    """Return what the table shows, method by method.

    Args:
        planned: the planned runs.
        results: what has run; of a server's runs, the unpruned one may be there from another server.
    """
    others = {EvaluationRun(each.run.model, each.run.task): None for each in planned}
    earlier = [PlannedRun(run) for run in others if _is_comparable(run, planned, results)]
    seen = {each.run for each in planned if each.refusal is None}
    every = [*(each for each in earlier if each.run not in seen), *planned]
    printed = _printed(every[0].run.model)
    subject = named_subject(every[0].run.model, every[0].run.model_title)
    headings = {task: _columns(task, every, results) for task in dict.fromkeys(each.run.task for each in every)}
    found = []
    for each in every:
        run = each.run
        setting = Setting(run.method, run.keep_ratio, run.num_keep, scope=run.scope, newlines=run.newlines)
        row = TableRow(_label(each), setting, each.matching, each.keep_ratio)
        for column in headings[run.task]:
            number = printed.get((run, column.key)) if each.refusal is None else None
            found.append(Entry(EVAL, subject, row, column, run, each.refusal, number))
    return found


def _is_comparable(unpruned: EvaluationRun, planned: Sequence[PlannedRun], results: Results) -> bool:
    """Tell whether there is a record of the unpruned model, of the same documents, shown and scored alike."""
    base = results.record(unpruned)
    records = [results.record(each.run) for each in planned if each.refusal is None and each.run.task == unpruned.task]
    return base is not None and all(
        record.config.get(name) == base.config.get(name)
        for record in records
        if record is not None and "refusal" not in record.config
        for name in _SHARED
    )


def _label(planned: PlannedRun) -> str:
    parts = (
        str(planned.run.as_config()["method"]),
        planned.run.budget_title,
        planned.run.sharing_title,
        "at equal FLOPs" if planned.refusal else "",
    )
    return " ".join(part for part in parts if part)


def _columns(task: str, planned: Sequence[PlannedRun], results: Results) -> list[Column]:
    """Return what is shown of a task: what the paper prints, or the metric by which records say that it was scored."""
    known = next((each for each in DATA_SETS if each.task == task), None)
    if known is not None:
        own = [column for column in (*IMAGE_COLUMNS, *VIDEO_COLUMNS) if column.data_set == known.key]
        return [replace(column, title=column.key) for column in own]
    records = [results.record(each.run) for each in planned if each.run.task == task]
    metrics = [
        str(record.config["metric"]).partition(",")[0] for record in records if record and "metric" in record.config
    ]
    metric = metrics[0] if metrics else ""
    scale = next((each.scale for each in DATA_SETS if each.todays_task == task and each.metric == metric), 1)
    key = AS_IN_LMMS_EVAL + task if any(each.key == task for each in DATA_SETS) else task
    return [Column(key, key, key, metric, scale, 2 if scale == 100 else 3)]


def metrics_line(found: Compared) -> str:
    """Say what is printed of each data set."""
    columns = dict.fromkeys(result.entry.column for result in found.results)
    named = [f"{each.title} {each.metric}{' in %' if each.scale == 100 else ''}" for each in columns if each.metric]
    return f"Scores: {', '.join(named)}."


def _printed(model: str) -> Mapping[tuple[EvaluationRun, str], float]:
    """Return the paper's numbers of a model, by the run that gives them and the column; none for other models."""
    architecture = architecture_of(model)
    if architecture is None:
        return {}
    subject = paper_subject(architecture, model)
    tables = [each for each in PRESETS if each.name in _PRINTED_IN and architecture in each.architectures]
    listed = [entry for preset in tables for entry in entries(preset, subject)]
    return {
        (entry.run, entry.column.key): entry.printed
        for entry in listed
        if entry.run is not None and entry.printed is not None
    }


def has_printed(found: Compared) -> bool:
    """Tell whether the paper prints any of the numbers."""
    return any(result.entry.printed is not None for result in found.results)


def score_lines(found: Compared, results: Results) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Yield each data set's title and its lines, without the paper's numbers if it prints none; tokens kept go last."""
    with_paper, with_retention = has_printed(found), has_retention(found, results)
    counts = _counts(found, results)
    for place, (title, lines) in enumerate(sections(found, is_short=True)):
        of_group = counts[place] if place < len(counts) else ()
        shown = [[*line, *of_row] for line, of_row in zip_longest(lines, of_group, fillvalue=("", ""))]
        for line in shown:
            if not with_retention:
                del line[-1]
            if not with_paper:
                del line[_PAPER]
        yield title, list(map(tuple, shown))


def has_retention(found: Compared, results: Results) -> bool:
    """Tell whether any run was judged by the unpruned model's answers."""
    return any(_retention(result, results) is not None for result in found.results)


def _counts(found: Compared, results: Results) -> list[Sequence[tuple[str, str]]]:
    """Tokens kept, and what is retained of what images tell, of each row of each data set."""
    groups: dict[Column, list[tuple[str, str]]] = {}
    for result in found.results:
        kept = "all" if result.entry.row.method == UNPRUNED else _kept(result, results)
        retained = _retention(result, results)
        told = "" if retained is None else f"{retained.value:.3f} ({retained.low:.3f},{retained.high:.3f})"
        groups.setdefault(result.entry.column, []).append((kept, told))
    return list(groups.values())


def _retention(result: Result, results: Results) -> Estimate | None:
    run = result.entry.run
    return None if run is None or result.entry.refusal is not None else results.retention(run)


def _kept(result: Result, results: Results) -> str:
    kept = _measured(result, results)["num_kept_mean"]
    return "" if kept is None else f"{kept:.0f}"


def _measured(result: Result, results: Results) -> dict[str, Any]:
    run, refusal = result.entry.run, result.entry.refusal
    record = None if run is None or refusal is not None else results.record(run)
    config = {"refusal": refusal} if record is None else record.config
    return {name: config.get(name) for name in ("num_kept_mean", "num_visual_tokens_mean", "refusal")}


def as_rows(found: Compared, results: Results) -> list[dict[str, Any]]:
    """Return one row a number, ready for JSON."""
    rows = []
    for result in found.results:
        entry, run = result.entry, result.entry.run
        named = {} if run is None else {name: run.as_config()[name] for name in _RUN_FIELDS}
        settings = {
            "metric": entry.column.metric,
            "matching": entry.row.matching,
            "asked_keep_ratio": entry.row.keep_ratio,
        }
        retained = _retention(result, results)
        told = {f"retention{end}": getattr(retained, name, None) for end, name in ENDS}
        rows.append(result.as_row() | named | settings | _measured(result, results) | told)
    return rows
