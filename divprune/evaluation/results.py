"""What runs have left: a record each, and the sample scores of its answers beside it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from divprune.errors import RecordError
from divprune.evaluation.datasets import Statistic
from divprune.evaluation.retention import Questions, loss
from divprune.evaluation.runs import EvaluationRun
from divprune.evaluation.sample_scores import SampleScore
from divprune.evaluation.statistics import Estimate
from divprune.records import Record, load_record

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """How likely a run's model finds the unpruned model's answer to one request.

    Attributes:
        key: of the request, the same in all runs of a task.
        answer: the unpruned model's.
        log_likelihood: mean per token, in nats.
        blind_log_likelihood: of the unpruned model that gets no images; None in other runs.
        media: the same where the images are; None in other runs.
    """

    key: str
    answer: str
    log_likelihood: float
    blind_log_likelihood: float | None = None
    media: str | None = None


@dataclass(frozen=True)
class Results:
    """A folder of records, one a run.

    Attributes:
        folder: where they are.
    """

    folder: Path
    _records: dict[str, Record | None] = field(default_factory=dict, repr=False, compare=False)

    def record(self, run: EvaluationRun) -> Record | None:
        """Return a run's record, None if it has not run.

        Raises:
            RecordError: the file is no record.
        """
        if run.name not in self._records:
            path = self.folder / f"{run.name}.json"
            self._records[run.name] = load_record(path) if path.is_file() else None
        return self._records[run.name]

    def value(self, run: EvaluationRun, metric: str) -> float | None:
        """Return one number of a run, on the metric's own scale; None if it has not run or has no such number."""
        record = self.record(run)
        for row in [] if record is None else record.rows:
            if str(row["metric"]).partition(",")[0] == metric:
                return None if row["value"] is None else float(row["value"])
        return None

    def is_main(self, run: EvaluationRun, metric: str) -> bool:
        """Tell whether the run's scores are those of this metric."""
        record = self.record(run)
        return record is not None and str(record.config.get("metric", "")).partition(",")[0] == metric

    def statistic(self, run: EvaluationRun) -> Statistic:
        """Return how a run's sample scores make its score; "mean" if its record does not say."""
        record = self.record(run)
        found: Any = "mean" if record is None else record.config.get("statistic", "mean")
        if found not in ("mean", "f1", "mme"):
            raise RecordError(f"{run.name}.json must name a statistic of mean, f1 and mme, got {found!r}")
        statistic: Statistic = found
        return statistic

    def sample_scores(self, run: EvaluationRun) -> Sequence[SampleScore]:
        """Read the sample scores of a run's answers; none if there are none.

        Raises:
            RecordError: the file does not hold sample scores.
        """
        return self._lines(run, "samples", _sample_score, "a sample score a line, with doc_id and score")

    def judged(self, run: EvaluationRun) -> Sequence[JudgedResponse]:
        """Read how likely a run's model finds the unpruned answers; none if it was not asked for.

        Raises:
            RecordError: the file does not hold them.
        """
        return self._lines(run, "retention", lambda line: JudgedResponse(**line), "a judged answer a line")

    def retention(self, run: EvaluationRun) -> Estimate | None:
        """Tell what a run retains of what images tell the unpruned model, with a 95 % interval.

        Returns:
            1 if nothing is lost, 0 if it might as well not look; None where that was not asked for, or images tell the
            unpruned model nothing. See `divprune.evaluation.retention`.
        """
        pruned = {each.key: each.log_likelihood for each in self.judged(run)}
        known = [each for each in self.judged(EvaluationRun(run.model, run.task)) if each.key in pruned]
        if not known:
            return None
        unpruned = np.array([each.log_likelihood for each in known])
        blind = np.array([each.blind_log_likelihood for each in known], dtype=np.float64)
        _, groups = np.unique([str(each.media) for each in known], return_inverse=True)
        try:
            lost = loss(Questions(unpruned, blind, groups), np.array([pruned[each.key] for each in known]))
        except ValueError:
            return None
        return Estimate(1 - lost.value, 1 - lost.high, 1 - lost.low)

    def _lines(self, run: EvaluationRun, kind: str, parse: Callable[[Any], _Parsed], what: str) -> list[_Parsed]:
        path = self.folder / f"{run.name}.{kind}.jsonl"
        if not path.is_file():
            return []
        try:
            return [parse(json.loads(line)) for line in path.read_bytes().split(b"\n") if line.strip()]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(f"{path.name} must hold {what}, got {error}") from None


def _sample_score(line: Any) -> SampleScore:
    _ = line["doc_id"], line["score"]
    found: SampleScore = line
    return found
