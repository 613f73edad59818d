"""The points of Figures 1 and 4, as the rows of a record."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from divprune.evaluation.cells import UNPRUNED
from divprune.evaluation.results import Results
from divprune.experiments.comparison import Compared, Result
from divprune.experiments.paper.columns import MEAN
from divprune.experiments.paper.settings import Setting, flop_ratio
from divprune.experiments.subjects import Subject


def figure_rows(compared: Compared, results: Results) -> list[dict[str, Any]]:
    """Return one row a method and share: our mean and cost, and the paper's; None where there is none.

    Args:
        compared: a table with a mean, on one model.
        results: what it was read from.
    """
    rows: dict[str, list[Result]] = {}
    for result in compared.results:
        rows.setdefault(result.entry.row.label, []).append(result)
    return [_row(label, found, results) for label, found in rows.items()]


def _row(label: str, found: Sequence[Result], results: Results) -> dict[str, Any]:
    mean = next(result for result in found if result.entry.column.data_set == MEAN)
    scores = [result for result in found if result.entry.column.is_score]
    row, subject = mean.entry.row, mean.entry.subject
    low, high = _around(mean.value, scores)
    printed = [
        result.entry.column.percent * result.entry.printed for result in scores if result.entry.printed is not None
    ]
    return {
        "label": label,
        "series": UNPRUNED if row.method == UNPRUNED else _series(label, row.method, row.matching),
        "flop_percent": _cost(subject, row.setting, scores, results),
        "mean": mean.value,
        "mean_low": low,
        "mean_high": high,
        "printed_percent": None if row.printed is None else row.printed.flop_percent,
        "printed_mean": fmean(printed) if len(printed) == len(scores) else None,
        "missing": mean.missing,
    }


def _series(label: str, method: str | None, matching: str | None) -> str:
    """One name for all shares of a method; FastV has two, as it keeps as many tokens or costs as much."""
    base = method or label.partition(",")[0]
    return f"{base} at equal tokens" if base == "fastv" and matching == "tokens" else base


def _around(mean: float | None, scores: Sequence[Result]) -> tuple[float | None, float | None]:
    """The interval of a mean of independent scores."""
    halves = [
        result.entry.column.percent * (result.interval.high - result.interval.low) / 2
        for result in scores
        if result.interval is not None
    ]
    if mean is None or len(halves) < len(scores):
        return None, None
    half = sum(each**2 for each in halves) ** 0.5 / len(halves)
    return mean - half, mean + half


def _cost(subject: Subject, setting: Setting | None, scores: Sequence[Result], results: Results) -> float | None:
    """Cost in percent of the unpruned prefill; for methods that find their own number, as many as they kept."""
    if setting is None or setting.refusal is not None:
        return None
    if setting.method == UNPRUNED:
        return 100.0
    if setting.flop_ratio is not None:
        return 100 * setting.flop_ratio
    if setting.method in ("prumerge", "divprune-star"):
        records = [results.record(result.entry.cell) for result in scores if result.entry.cell is not None]
        counts = [record.config.get("num_kept_mean") for record in records if record is not None]
        kept = [float(count) for count in counts if count is not None]
        if not kept or len(kept) < len(counts):
            return None
        return 100 * flop_ratio(subject, Setting("random", num_keep=max(1, round(fmean(kept)))))
    return 100 * flop_ratio(subject, setting)
