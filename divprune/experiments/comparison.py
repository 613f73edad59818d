"""Our runs beside the paper's, and beside our own unpruned model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from divprune.evaluation.datasets import Statistic
from divprune.evaluation.results import Results
from divprune.evaluation.runs import UNPRUNED
from divprune.evaluation.sample_scores import SampleScore
from divprune.evaluation.statistics import Comparison, Estimate, compare_scores, interval, overall_share_kept, score
from divprune.experiments.paper.columns import MEAN
from divprune.experiments.paper.presets import Entry
from divprune.experiments.paper.rows import TRAINED

REFERENCE = "reference only"
NOT_YET = "not run yet"
NO_SCORE = "no score: the record says why"
INCOMPLETE = "no score of"
_CLOSE = 0.01
"""Marks whose score differs by a larger share from the metric's do not tell its interval."""


@dataclass(frozen=True, slots=True)
class Result:
    """One number of a table, ours and the paper's, both as the paper prints it.

    Attributes:
        entry: which.
        value: ours; None if there is none.
        interval: 95 % interval of ours; None where there are no sample scores of its answers.
        against: ours against our unpruned model's; None for that itself, and where there are no sample scores.
        share_kept: of the unpruned number, with its interval if there are sample scores; None where it is not known.
        missing: why there is no value; None if there is one.
        num_samples: questions that it rests on; None if that is not known.
    """

    entry: Entry
    value: float | None
    interval: Estimate | None = None
    against: Comparison | None = None
    share_kept: Estimate | None = None
    missing: str | None = None
    num_samples: int | None = None

    @property
    def difference(self) -> float | None:
        """Ours - printed."""
        if self.value is None or self.entry.printed is None:
            return None
        return self.value - self.entry.printed

    def as_row(self) -> dict[str, Any]:
        """Return it, ready for JSON."""
        against, share, own = self.against, self.share_kept, self.interval
        row: dict[str, Any] = {
            "table": self.entry.preset,
            "model": self.entry.subject.title,
            "row": self.entry.row.label,
            "fidelity": self.entry.row.fidelity,
            "column": self.entry.column.key,
            "value": self.value,
            "value_low": own and own.low,
            "value_high": own and own.high,
            "printed": self.entry.printed,
            "difference": self.difference,
            "missing": self.missing,
            "num_samples": self.num_samples,
        }
        row |= {f"share_kept{end}": getattr(share, name, None) for end, name in ENDS}
        row |= {f"unpruned_difference{end}": getattr(against and against.difference, name, None) for end, name in ENDS}
        return row | {"p_value": against and against.p_value, "test": against and against.test}


ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))
_Marked = tuple[Sequence[SampleScore], Sequence[SampleScore], Statistic]


@dataclass(frozen=True, slots=True)
class Compared:
    """A table on one model.

    Attributes:
        results: its numbers, row by row.
        shares: by the label of a row, the mean over data sets of the fraction of the unpruned score that is kept; of
            rows only all of whose numbers are there, with the sample scores of their answers.
    """

    results: Sequence[Result]
    shares: Mapping[str, Estimate]


def compared(listed: Sequence[Entry], results: Results, refused: Mapping[str, str] | None = None) -> Compared:
    """Put every number of a table on one model beside the paper's.

    Args:
        listed: the table's entries, row by row.
        results: the folder with what has run.
        refused: why runs were left out, by name.

    Raises:
        RecordError: a record, or a file of sample scores, is broken.
    """
    unpruned = {entry.column.key: entry for entry in listed if entry.row.method == UNPRUNED}
    rows: dict[str, list[Entry]] = {}
    for entry in listed:
        rows.setdefault(entry.row.label, []).append(entry)
    reader = _Reader(results, unpruned, refused or {})
    return Compared([result for row in rows.values() for result in reader.row(row)], reader.shares)


class _Reader:
    """Reads a table row by row; the unpruned model's sample scores stay in memory."""

    def __init__(self, results: Results, unpruned: Mapping[str, Entry], refused: Mapping[str, str]) -> None:
        self._results, self._unpruned, self._refused = results, unpruned, refused
        self._unpruned_scores: dict[str, Sequence[SampleScore]] = {}
        self.shares: dict[str, Estimate] = {}

    def row(self, row: Sequence[Entry]) -> list[Result]:
        marked: list[_Marked] = []
        found = [self._result(entry, marked) for entry in row if entry.column.data_set != MEAN]
        share = self._overall(found, marked)
        if share is not None:
            self.shares[row[0].row.label] = share
        return found + [self._mean(entry, found, share) for entry in row if entry.column.data_set == MEAN]

    def _overall(self, row: Sequence[Result], marked: Sequence[_Marked]) -> Estimate | None:
        scores = [result for result in row if result.entry.column.is_score]
        main = [each for each in scores if each.entry.run and self._is_main(each.entry)]
        whole = all(each.value is not None for each in scores) and len(marked) == len(main)
        return overall_share_kept(marked) if whole else None

    def _missing(self, entry: Entry) -> str | None:
        name = "" if entry.run is None else entry.run.name
        refusal = entry.refusal or self._refused.get(name)
        if refusal is not None:
            return _reason(refusal)
        return None if entry.run is not None and self._results.record(entry.run) is not None else NOT_YET

    def _is_main(self, entry: Entry) -> bool:
        return entry.run is not None and self._results.is_main(entry.run, entry.column.metric)

    def _result(self, entry: Entry, marked: list[_Marked]) -> Result:
        missing = self._missing(entry)
        if missing is not None or entry.run is None:
            return Result(entry, None, missing=missing)
        column, record = entry.column, self._results.record(entry.run)
        value = self._results.value(entry.run, column.metric)
        if value is None:
            return Result(entry, None, missing=_reason(record and record.config.get("refusal")))
        count = None if record is None else record.config.get("num_samples")
        ours, base, statistic = self._marks(entry, value)
        own = _scaled(interval(ours, statistic), column.scale) if ours else None
        share = self._plain_share(entry, value)
        if not ours or not base:
            return Result(entry, value * column.scale, own, None, share, None, count)
        marked.append((ours, base, statistic))
        against = compare_scores(ours, base, statistic)
        scaled = Comparison(
            _scaled(against.difference, column.scale),
            against.p_value,
            against.test,
            against.share_kept,
            against.num_documents,
        )
        return Result(entry, value * column.scale, own, scaled, against.share_kept or share, None, count)

    def _marks(self, entry: Entry, value: float) -> _Marked:
        """Pair the sample scores of a run and of the unpruned one; none where they are not those of this number."""
        run = entry.run
        if run is None or not self._is_main(entry):
            return [], [], "mean"
        sample_scores, statistic = self._results.sample_scores(run), self._results.statistic(run)
        if not any(sample_score["score"] is not None for sample_score in sample_scores):
            return [], [], statistic
        try:
            seen = score(sample_scores, statistic)
        except ValueError:  # none of MME's images has both its questions
            return [], [], statistic
        if abs(seen - value) > _CLOSE * max(abs(seen), abs(value)):
            return [], [], statistic
        base = self._unpruned.get(entry.column.key)
        if base is None or base.run is None or base.run == run or not self._is_main(base):
            return sample_scores, [], statistic
        if base.run.name not in self._unpruned_scores:
            self._unpruned_scores[base.run.name] = self._results.sample_scores(base.run)
        return sample_scores, self._unpruned_scores[base.run.name], statistic

    def _plain_share(self, entry: Entry, value: float) -> Estimate | None:
        base = self._unpruned.get(entry.column.key)
        if base is None or base.run is None or base.run == entry.run:
            return None
        whole = self._results.value(base.run, entry.column.metric)
        return Estimate(value / whole, value / whole, value / whole) if whole else None

    def _mean(self, entry: Entry, row: Sequence[Result], share: Estimate | None) -> Result:
        scores = [result for result in row if result.entry.column.is_score]
        lacking = [result.entry.column.title for result in scores if result.value is None]
        if entry.refusal is not None:
            return Result(entry, None, missing=_reason(entry.refusal))
        if lacking or not scores:
            return Result(entry, None, missing=f"{INCOMPLETE} {', '.join(lacking)}" if lacking else NOT_YET)
        value = fmean(result.entry.column.percent * (result.value or 0.0) for result in scores)
        return Result(entry, value, share_kept=share)


def _reason(refusal: Any) -> str:
    return NO_SCORE if not refusal else REFERENCE if refusal == TRAINED else f"not run: {refusal}"


def _scaled(estimate: Estimate, scale: float) -> Estimate:
    return Estimate(estimate.value * scale, estimate.low * scale, estimate.high * scale)
