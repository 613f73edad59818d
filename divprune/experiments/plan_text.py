"""Describe a plan of the paper: a line a row of each table, a line a data set, and totals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from divprune.checkpoints import EMBEDDED
from divprune.experiments.costs import GPUS, PEAK_SHARE, RECIPE, CostedRun, Throughput, total_hours, usual_throughput
from divprune.experiments.paper.presets import Entry
from divprune.experiments.paper.settings import recipe_command

PETA, TERA = 1e15, 1e12
ROW_HEADER = ("row", "method", "budget", "runs", "TFLOP", "PFLOP", "hours", "paper %")
DATA_SET_HEADER = ("data set", "needs", "samples", "answer", "rows", "judge calls", "PFLOP", "hours")


def row_lines(listed: Sequence[Entry], planned: Sequence[CostedRun], throughput: Throughput) -> Iterator[Sequence[str]]:
    """Yield one line a row of one table on one model; `ROW_HEADER` has the columns."""
    by_name = {each.run.name: each for each in planned}
    for label, group in _by_row(listed).items():
        names = dict.fromkeys(entry.run.name for entry in group if entry.run is not None)
        own = [by_name[name] for name in names if name in by_name]
        yield _row(label, group, own, len(names), throughput)


def _row(
    label: str, group: Sequence[Entry], own: Sequence[CostedRun], num_runs: int, throughput: Throughput
) -> Sequence[str]:
    row = group[0].row
    printed = "" if row.printed is None else "varies" if row.printed.varies else _percent(row.printed.flop_percent)
    if num_runs == 0 or row.setting is None:
        return (label, "not run: " + ("reference" if row.setting is None else "see below"), "", "", "", "", "", printed)
    run = next(entry.run for entry in group if entry.run is not None)
    method = "fitprune" if row.method == "fitprune" else row.setting.method
    if not own:
        return (label, method, run.budget_title, "shared", "", "", "", printed)
    samples = sum(each.work.num_samples for each in own)
    mean = sum(each.work.num_samples * each.prefill_flop for each in own) / samples
    return (
        label,
        method,
        run.budget_title,
        str(len(own)),
        f"{mean / TERA:.3g}",
        _peta(own),
        f"{total_hours(own, throughput):.2f}",
        printed,
    )


def data_set_lines(planned: Sequence[CostedRun], throughput: Throughput) -> Iterator[Sequence[str]]:
    """Yield one line a data set, the questions of one row and what all rows take; see `DATA_SET_HEADER`."""
    groups: dict[tuple[str, str], list[CostedRun]] = {}
    for each in planned:
        groups.setdefault((each.work.title, each.work.medium), []).append(each)
    for (title, medium), group in groups.items():
        needs = dict.fromkeys(need for each in group for need in each.work.needs if need != RECIPE)
        calls = sum(each.work.num_judge_calls for each in group)
        yield (
            title if medium == "image" else f"{title} (video)",
            ", ".join(needs),
            f"{group[0].work.num_samples:,}",
            str(group[0].work.mean_answer_tokens),
            str(len(group)),
            f"{calls:,}" if calls else "",
            _peta(group),
            f"{total_hours(group, throughput):.2f}",
        )


def refusals(listed: Iterable[Entry]) -> list[str]:
    """Say which rows and columns are not run, and why; a line a reason."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for entry in listed:
        if entry.refusal is not None:
            by_row = entry.refusal == entry.row.refusal
            what = entry.row.label if by_row else entry.column.title
            found.setdefault((entry.subject.title, entry.refusal), {})[what] = None
    return [f"not run on {title}: {', '.join(names)}: {reason}" for (title, reason), names in found.items()]


def assumptions(planned: Sequence[CostedRun]) -> list[str]:
    """Say what estimates take for granted; a line each."""
    found: dict[str, dict[str, None]] = {}
    for each in planned:
        if each.assumption is not None:
            found.setdefault(each.assumption, {})[each.row.partition(",")[0]] = None
    return [f"{', '.join(rows)}: {text}" for text, rows in found.items()]


def preparations(planned: Sequence[CostedRun]) -> list[str]:
    """Say which files must be made first, and how; a line each."""
    wanted = [each for each in planned if each.run.model != EMBEDDED]  # made on the spot, from generated scenes
    found = dict.fromkeys((each.model, each.run.model, each.recipe) for each in wanted if each.recipe is not None)
    return [f"FitPrune on {title} needs a recipe: {recipe_command(model, recipe)}" for title, model, recipe in found]


def totals(planned: Sequence[CostedRun], throughput: Throughput, num_gpus: int) -> list[str]:
    """Say what all of it takes, and what that rests on."""
    hours, calls = total_hours(planned, throughput), sum(each.work.num_judge_calls for each in planned)
    samples = sum(each.work.num_samples for each in planned)
    flop = sum(each.total_flop for each in planned)
    judged = f", {calls:,} judge calls" if calls else ""
    others = ", ".join(f"{gpu.name} {total_hours(planned, usual_throughput(gpu)):.1f}" for gpu in GPUS)
    return [
        f"{len(planned)} runs, {samples:,} answers, {flop / PETA:,.1f} PFLOP{judged}; {hours:.1f} hours of one GPU "
        f"({throughput.name}), {hours / num_gpus:.1f} on {num_gpus}.",
        f"Hours of one GPU at {PEAK_SHARE:.0%} of its peak: {others}.",
        "TFLOP: a prefill, encoder included, two operations a multiply-accumulate. paper %: its TFLOP ratio. Hours, in "
        f"batches of one: prefills at {throughput.tflops:.0f} TFLOP/s (the paper's 0.330 s on a V100 are "
        f"{PEAK_SHARE:.0%} of its peak), weights read at {throughput.bandwidth_terabytes:.2f} TB/s for each token of "
        f"the answer, and {throughput.image_overhead_seconds:g} s an image or "
        f"{throughput.video_overhead_seconds:g} s a video for all else (a guess).",
    ]


def _peta(planned: Sequence[CostedRun]) -> str:
    value = sum(each.total_flop for each in planned) / PETA
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _by_row(listed: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in listed:
        groups.setdefault(entry.row.label, []).append(entry)
    return groups


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
