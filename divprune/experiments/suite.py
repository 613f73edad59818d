"""Compare methods on data sets: what has no record yet is run by lmms-eval, then all of it is compared."""

from dataclasses import dataclass
from typing import Any

from divprune.distributed import is_main_process
from divprune.evaluation.results import Results
from divprune.experiments.comparison import Compared, compared
from divprune.experiments.harness import run_in_harness
from divprune.experiments.plan import SuiteOptions, plan_suite
from divprune.experiments.tables import as_rows, entries_of
from divprune.progress import SILENT, Progress


@dataclass(frozen=True)
class SuiteScores:
    """What came out.

    Attributes:
        found: the scores, compared.
        results: the records that they were read from.
    """

    found: Compared
    results: Results

    def as_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        shares = {
            label: {"share_kept": each.value, "low": each.low, "high": each.high}
            for label, each in self.found.shares.items()
        }
        return {"output": str(self.results.folder), "rows": as_rows(self.found, self.results), "shares_kept": shares}


def run_suite(options: SuiteOptions, progress: Progress = SILENT) -> SuiteScores | None:
    """Run what has no record yet, and compare all of it.

    Returns:
        The scores; None in other processes than the main one.

    Raises:
        ArgumentError: an argument cannot work.
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a run needs is missing, or a scorer failed.
        RecordError: a record that is there is broken.
    """
    with progress.working("planning"):
        planned = plan_suite(options)
    run_in_harness([each.run for each in planned if each.refusal is None], options.harness, progress)
    if not is_main_process():
        return None
    results = Results(options.harness.output)
    with progress.working("comparing"):
        found = compared(entries_of(planned, results), results)
    return SuiteScores(found, results)
