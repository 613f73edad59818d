"""Run data sets through lmms-eval, where it is installed."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from divprune.distributed import is_main_process
from divprune.errors import MissingDependencyError
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.runs import EvaluationRun
from divprune.progress import SILENT, Progress

HARNESS = "divprune.lmms_eval_plugin.runs.execute"


def run_in_harness(runs: Sequence[EvaluationRun], options: HarnessOptions, progress: Progress = SILENT) -> None:
    """Have runs answered and scored; each leaves its record in the output folder, and is not repeated.

    Args:
        runs: the runs.
        options: how.
        progress: is told how far it is; all processes but the main one are silent.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a run needs is missing, or a scorer failed.
    """
    _harness().execute_runs(runs, options, progress if is_main_process() else SILENT)


def _harness() -> Any:
    try:
        return import_module(HARNESS)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'running data sets needs lmms-eval: pip install "divprune[eval]" ({error})'
        ) from None
