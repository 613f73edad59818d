"""Runs of a comparison, run through lmms-eval in this process: every run ends in a record, and a crash loses nothing.

documents -> conversations -> pruned model -> answers on disk -> lmms-eval's scorers -> record and sample scores.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import lmms_eval.api.task
import lmms_eval.evaluator
from loguru import logger
from tenacity import RetryError
from tqdm import tqdm

from divprune.checkpoints import checkpoint_revision
from divprune.distributed import is_main_process, num_processes
from divprune.errors import DivpruneError, EvaluationError, PruningError, UnsupportedModelError, first_line
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.results import Results
from divprune.evaluation.runs import EvaluationRun
from divprune.jsonl_log import JsonlLog
from divprune.lmms_eval_plugin.data.local_data import PaperTaskManager, task_manager
from divprune.lmms_eval_plugin.data.revisions import data_revision
from divprune.lmms_eval_plugin.runs import preflight
from divprune.lmms_eval_plugin.runs.answers import Answers
from divprune.lmms_eval_plugin.runs.backends import ModelPool
from divprune.lmms_eval_plugin.runs.resuming import ResumingModel
from divprune.lmms_eval_plugin.runs.retention import RetentionJudge
from divprune.lmms_eval_plugin.runs.run_records import (
    answer_identity,
    finished_record,
    refusal_record,
    run_record,
    run_settings,
    save_sample_scores,
)
from divprune.lmms_eval_plugin.scoring.settings import EGOSCHEMA_URL, ScoringSettings, use
from divprune.progress import SILENT, Progress
from divprune.records import Record

__all__ = ["HarnessOptions", "execute_runs"]

JUDGE_THREADS = 4


def execute_runs(runs: Sequence[EvaluationRun], options: HarnessOptions, progress: Progress = SILENT) -> list[Record]:
    """Carry runs out, those of one model together, and write a record for each.

    Under torchrun every process calls this with the same arguments, and answers its share.

    Args:
        runs: what to run; tasks are single tasks, no groups.
        options: how.
        progress: is told how far it is.

    Returns:
        The records, in the order of the runs; in other processes than the main one, none.

    Raises:
        EvaluationError: something is missing, found before the first question; or a scorer or server failed. All
            answers so far are on disk, and the same call goes on from them.
    """
    if options.backend != "hf" and num_processes() > 1:
        raise EvaluationError(f"`backend` {options.backend} runs in one process; leave torchrun out")
    _prepare_folder(options)
    url = options.egoschema_url or EGOSCHEMA_URL
    scoring = ScoringSettings(options.tokenizer, options.output / ".scoring", url)
    with use(scoring), _quiet(options.debug):
        manager = task_manager(options.data, options.include_paths)
        found = _checked(runs, manager, scoring)
        models = list(dict.fromkeys(run.model for run in runs))
        has_models = options.backend != "openai-server"
        revisions = {model: checkpoint_revision(model) if has_models else None for model in models}
        state = _Run(options, progress, manager, found, ModelPool(options, revisions), len(runs))
        order = sorted(range(len(runs)), key=lambda place: models.index(runs[place].model))
        try:
            records = {place: state.record_of(runs[place]) for place in order}
        finally:
            state.pool.close()
    return [record for place in range(len(runs)) if (record := records[place]) is not None]


class _Run:
    def __init__(
        self,
        options: HarnessOptions,
        progress: Progress,
        manager: PaperTaskManager,
        found: dict[str, Any],
        pool: ModelPool,
        num_runs: int,
    ) -> None:
        self.options, self.progress, self.manager = options, progress, manager
        self.found, self.pool = found, pool
        self._num_runs, self._num_begun = num_runs, 0

    def record_of(self, run: EvaluationRun) -> Record | None:
        """Return a run's record, from an earlier start if it has finished there."""
        settings = run_settings(run, self.options, self.pool.revisions[run.model]) | self._scoring(run.task)
        finished = finished_record(run, settings, self.options)
        is_simple = self.manager.simple_config(run.task).get("output_type") == "multiple_choice"
        is_judged = self.options.retention and not is_simple
        if finished is not None and not (is_judged and not Results(self.options.output).judged(run)):
            self.progress.note(f"{run.name} has run already")
            return finished
        try:
            model = self.pool.model_for(run, is_simple)
        except (UnsupportedModelError, PruningError, EvaluationError) as error:
            return self._refused(run, settings, error)
        return self._evaluated(run, settings, model, is_judged)

    def _scoring(self, task: str) -> dict[str, Any]:
        """Return what the scores of a task come from."""
        needs = preflight.needs(task, self.manager)
        named = {"tokenizer": "java", "judge": "judge", "egoschema_url": "egoschema server"}
        return {name: value for name, value in self.found.items() if named[name] in needs}

    def _evaluated(self, run: EvaluationRun, settings: dict[str, Any], model: Any, is_judged: bool) -> Record | None:
        kind = "simple" if model.is_simple else "chat"
        (task,) = self.manager.load_task_or_group([run.task], kind).values()
        data = data_revision(task)
        num_documents = min(self.options.limit or data["num_samples"], data["num_samples"])
        if num_documents < num_processes():
            raise EvaluationError(
                f"{run.task} has {num_documents} documents for {num_processes()} processes; start fewer processes"
            )
        identity = answer_identity(settings, data)
        answers = Answers(JsonlLog(self.options.output, run.name, identity, model.rank))
        judge = None
        if is_judged:
            judge = RetentionJudge(run, model, Results(self.options.output), identity, self.options.resume)
        if not self.options.resume:
            answers.forget(num_processes())
        elif len(answers):
            self.progress.note(f"{run.name}: {len(answers)} answers of an earlier run are there and not asked again")
        self._num_begun += 1
        named = " ".join(part for part in (run.task, run.method, run.budget_title) if part)
        title = f"{self._num_begun} of at most {self._num_runs}: {named}"
        try:
            with self.progress.counting(title, num_documents // num_processes()) as advance:
                asked = ResumingModel(model, answers, self.options.group_size, advance, judge)
                results = self._scored(asked, task, JUDGE_THREADS if "judge" in settings else 1)
        except EvaluationError as error:
            if len(answers) == 0 and isinstance(error.__cause__, (UnsupportedModelError, PruningError)):
                return self._refused(run, settings, error.__cause__)
            raise
        if judge is not None:
            judge.finish()
        if results is None:
            return None
        answers.read()
        record, sample_scores = run_record(run, settings, data, results, answers.measured)
        try:
            save_sample_scores(run, sample_scores, self.options.output)
            record.save(self.options.output)
        except OSError as error:
            raise EvaluationError(
                f"the record of {run.name} cannot be written to {self.options.output} ({error.strerror}); make room, "
                "and run the same command again: its answers are kept"
            ) from None
        answers.delete()
        return record

    def _scored(self, model: ResumingModel, task: Any, num_threads: int) -> dict[str, Any] | None:
        """Have the harness ask and score; errors of its own say that answers are kept."""
        arguments = Namespace(output_path=str(self.options.output / ".scoring"), process_with_media=True)
        try:
            results: dict[str, Any] | None = lmms_eval.evaluator.simple_evaluate(
                model=model,
                tasks=[task],
                task_manager=self.manager,
                limit=self.options.limit,
                bootstrap_iters=0,
                log_samples=True,
                cli_args=arguments,
                process_docs_parallel=num_threads,
                verbosity="DEBUG" if self.options.debug else "ERROR",
            )
            return results
        except RetryError as error:
            inner = error.last_attempt.exception() or error
            raise _scoring_error(inner) from inner
        except (DivpruneError, MemoryError, KeyboardInterrupt):
            raise
        except (ValueError, TypeError, KeyError, RuntimeError, OSError, ZeroDivisionError) as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise
            raise _scoring_error(error) from error

    def _refused(self, run: EvaluationRun, settings: dict[str, Any], error: Exception) -> Record | None:
        self.progress.note(f"{run.name} is refused: {error}")
        if not is_main_process():
            return None
        record = refusal_record(run, settings, str(error))
        record.save(self.options.output)
        return record


def _scoring_error(error: BaseException) -> DivpruneError:
    if isinstance(error, DivpruneError):
        return error
    return EvaluationError(
        f"{type(error).__name__} in asking or scoring: {first_line(error)}; answers so far are kept, the same "
        "command goes on from them"
    )


def _checked(runs: Sequence[EvaluationRun], manager: PaperTaskManager, scoring: ScoringSettings) -> dict[str, Any]:
    tasks = list(dict.fromkeys(run.task for run in runs))
    preflight.unknown(tasks, manager)
    for task in tasks:
        leaves = list(manager.leaves([task]))
        if leaves != [task]:
            raise EvaluationError(f"{task} is a group; name its tasks: {' '.join(leaves)}")
    return preflight.check(tasks, manager, scoring)


def _prepare_folder(options: HarnessOptions) -> None:
    try:
        (options.output / ".scoring").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"`output` {options.output}: no such folder can be made ({error.strerror})") from None


def _hidden_bar(*arguments: Any, **options: Any) -> Any:
    return tqdm(*arguments, **options | {"disable": True})


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Silence lmms-eval's logs and bars inside the block: progress is told by us."""
    if debug:
        yield
        return
    logger.disable("lmms_eval")
    try:
        with ExitStack() as stack:
            for module in (lmms_eval.evaluator, lmms_eval.api.task):
                stack.enter_context(patch.object(module, "tqdm", _hidden_bar))
            yield
    finally:
        logger.enable("lmms_eval")
