"""Compare methods on data sets: what has no record yet is run by lmms-eval, then all of it is compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from divprune.distributed import is_main_process
from divprune.errors import ArgumentError
from divprune.evaluation.results import Results
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.comparison import Compared, compared
from divprune.experiments.harness import run_in_harness
from divprune.experiments.misfits import misfit_reasons
from divprune.experiments.plan import PlannedRun, SuiteOptions, plan_suite
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
        planned = _without_misfits(plan_suite(options), options)
    run_in_harness([each.run for each in planned if each.refusal is None], options.harness, progress)
    if not is_main_process():
        return None
    results = Results(options.harness.output)
    with progress.working("comparing"):
        found = compared(entries_of(planned, results), results)
    return SuiteScores(found, results)


def _without_misfits(planned: Sequence[PlannedRun], options: SuiteOptions) -> list[PlannedRun]:
    """Refuse the runs that do not fit the model; if that leaves none that is pruned, refuse all of it.

    Other backends than Hugging Face say themselves what they serve.
    """
    if options.harness.backend != "hf":
        return list(planned)
    reasons = misfit_reasons([each.run for each in planned if each.refusal is None])
    pruned = {each.run for each in planned if each.run.method != UNPRUNED}
    if pruned and pruned <= reasons.keys():
        raise ArgumentError(next(iter(reasons.values())))
    return [replace(each, refusal=each.refusal or reasons.get(each.run)) for each in planned]
