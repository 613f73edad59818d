"""What runs have left: a record each, and the sample scores of its answers beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divprune.errors import RecordError
from divprune.evaluation.datasets import Statistic
from divprune.evaluation.runs import EvaluationRun
from divprune.evaluation.sample_scores import SampleScore
from divprune.records import Record, load_record


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
        path = self.folder / f"{run.name}.samples.jsonl"
        if not path.is_file():
            return []
        try:
            sample_scores = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
            for sample_score in sample_scores:
                _ = sample_score["doc_id"], sample_score["score"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(
                f"{path.name} must hold a sample score a line, with doc_id and score, got {error}"
            ) from None
        return sample_scores
