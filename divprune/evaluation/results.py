"""What runs have left of their cells: a record each, and the marks of its answers beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divprune.errors import RecordError
from divprune.evaluation.cells import EvaluationRun
from divprune.evaluation.datasets import Statistic
from divprune.evaluation.sample_scores import Mark
from divprune.records import Record, load_record


@dataclass(frozen=True)
class Results:
    """A folder of records, one a cell.

    Attributes:
        folder: where they are.
    """

    folder: Path
    _records: dict[str, Record | None] = field(default_factory=dict, repr=False, compare=False)

    def record(self, cell: EvaluationRun) -> Record | None:
        """Return a cell's record, None if it has not run.

        Raises:
            RecordError: the file is no record.
        """
        if cell.name not in self._records:
            path = self.folder / f"{cell.name}.json"
            self._records[cell.name] = load_record(path) if path.is_file() else None
        return self._records[cell.name]

    def value(self, cell: EvaluationRun, metric: str) -> float | None:
        """Return one number of a cell, on the metric's own scale; None if it has not run or has no such number."""
        record = self.record(cell)
        for row in [] if record is None else record.rows:
            if str(row["metric"]).partition(",")[0] == metric:
                return None if row["value"] is None else float(row["value"])
        return None

    def is_main(self, cell: EvaluationRun, metric: str) -> bool:
        """Tell whether the run's scores are those of this metric."""
        record = self.record(cell)
        return record is not None and str(record.config.get("metric", "")).partition(",")[0] == metric

    def statistic(self, cell: EvaluationRun) -> Statistic:
        """Return how the cell's marks make its score; "mean" if its record does not say."""
        record = self.record(cell)
        found: Any = "mean" if record is None else record.config.get("statistic", "mean")
        if found not in ("mean", "f1", "mme"):
            raise RecordError(f"{cell.name}.json must name a statistic of mean, f1 and mme, got {found!r}")
        statistic: Statistic = found
        return statistic

    def marks(self, cell: EvaluationRun) -> Sequence[Mark]:
        """Read the marks of a cell's answers; none if there are none.

        Raises:
            RecordError: the file does not hold marks.
        """
        path = self.folder / f"{cell.name}.samples.jsonl"
        if not path.is_file():
            return []
        try:
            marks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            for mark in marks:
                _ = mark["doc_id"], mark["score"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(f"{path.name} must hold one mark a line, with doc_id and score, got {error}") from None
        return marks
