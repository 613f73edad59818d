"""What an evaluation needs, looked for before the first question is asked.

lmms-eval finds out that a scorer cannot work when all answers are there, and then loses them.
"""

import os
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from divprune import json_over_http
from divprune.errors import EvaluationError
from divprune.evaluation.datasets import DATA_SETS, Requirement
from divprune.json_over_http import NoAnswerError
from divprune.lmms_eval_plugin.data.checks import check_cached_data, check_local_data
from divprune.lmms_eval_plugin.data.local_data import PaperTaskManager, data_key
from divprune.lmms_eval_plugin.scoring.captions import NO_JAVA, chosen_tokenizer, java_words
from divprune.lmms_eval_plugin.scoring.judge import PAPERS_JUDGE, Judge, close_benches, judge_from_environment
from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, current
from divprune.lmms_eval_plugin.scoring.wups import missing_corpora

TINY_REQUEST = [{"role": "user", "content": "Say yes."}]
_TODAYS = {data_set.todays_task: data_set for data_set in DATA_SETS}
_OURS = {data_set.task: data_set for data_set in DATA_SETS}


def check(tasks: Sequence[str], manager: PaperTaskManager, settings: ScoringSettings | None = None) -> dict[str, Any]:
    """Find out what the tasks' questions and scores need, and whether it is there.

    Args:
        tasks: names of tasks, groups or tags.
        manager: knows them, and where the data is.
        settings: of scoring; those of the process if None.

    Returns:
        What scores will come from, for the record: "tokenizer" of captions, "judge" with its model and address, and
        "egoschema_url", each if a task needs it.

    Raises:
        EvaluationError: something is missing; the message says what, and what to do.
    """
    settings = settings or current()
    unknown(tasks, manager)
    leaves = list(dict.fromkeys(manager.leaves(tasks)))
    for task in leaves:
        check_data(task, manager)
    return check_scoring(leaves, manager, settings)


def unknown(tasks: Sequence[str], manager: PaperTaskManager) -> None:
    """Refuse names that are no tasks.

    Raises:
        EvaluationError: with the nearest name that is one.
    """
    for task in tasks:
        if task not in manager.task_index:
            close = get_close_matches(task, manager.all_tasks, n=1, cutoff=0.4)
            raise EvaluationError(f"no task {task!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def needs(task: str, manager: PaperTaskManager) -> set[Requirement]:
    """Return what scoring a task needs beyond Python; of tasks outside the paper, only whether they score captions."""
    known = _OURS.get(task) or _TODAYS.get(task)
    if known is not None:
        return set(known.needs)
    return {"java"} if data_key(task) is None and manager.scores_captions(task) else set()


def check_scoring(tasks: Sequence[str], manager: PaperTaskManager, settings: ScoringSettings) -> dict[str, Any]:
    """Look for what the tasks' scorers need; see `check`."""
    found: dict[str, Any] = {}
    wanted = {task: needs(task, manager) for task in tasks}
    with_captions = [task for task, of_task in wanted.items() if "java" in of_task]
    if any(data_key(task) is not None for task in with_captions):
        found["tokenizer"] = check_tokenizer(settings)
    if any(data_key(task) is None for task in with_captions) and not shutil.which("java"):
        raise EvaluationError(f"{NO_JAVA}; lmms-eval's own tasks have no such choice")
    everything = set().union(*wanted.values()) if wanted else set()
    if "judge" in everything:
        judge = judge_from_environment()
        check_judge(judge)
        close_benches()  # it may have failed in an earlier run of this process
        found["judge"] = {"model": judge.model, "url": judge.url, "papers_model": PAPERS_JUDGE}
    if "wordnet" in everything:
        check_wordnet([task for task in tasks if data_key(task) is None and "wordnet" in wanted[task]])
    if "egoschema server" in everything:
        check_server(settings)
        found["egoschema_url"] = settings.egoschema_url
    return found


def check_tokenizer(settings: ScoringSettings) -> str:
    """Let the tokenizer of captions split one.

    Returns:
        Which it is: "java" or "python".

    Raises:
        EvaluationError: there is no Java, or it does not work.
    """
    chosen = chosen_tokenizer(settings)
    if chosen == "java" and java_words(["A dog."]) != ["a dog"]:
        raise EvaluationError("the official caption tokenizer does not split words; look at 'java -version'")
    return chosen


def check_judge(judge: Judge) -> None:
    """Ask the judge something small.

    Raises:
        EvaluationError: there is no key, or no answer.
    """
    variable = "AZURE_API_KEY" if judge.azure else "OPENAI_API_KEY"
    if judge.key is None:
        raise EvaluationError(
            f"a judge reads every answer of ActivityNet-QA and VideoChatGPT, and {variable} is not set; MODEL_VERSION "
            f"names the judge (now {judge.model}) and OPENAI_API_URL its address (now {judge.url})"
        )
    try:
        judge.ask(TINY_REQUEST, max_tokens=64)
    except NoAnswerError as error:
        reason = f"refuses the key in {variable}" if error.status in (401, 403) else "does not answer"
        raise EvaluationError(f"the judge {judge.model} at {judge.url} {reason}: {error}") from error


def check_wordnet(todays_tasks: Sequence[str]) -> None:
    """Look for the corpora of WUPS.

    Raises:
        EvaluationError: one is missing, or what only lmms-eval's own task needs.
    """
    missing = missing_corpora()
    if missing:
        raise EvaluationError(
            f"WUPS needs NLTK's {', '.join(missing)} in a folder of NLTK_DATA; get them once with "
            f"'python -m nltk.downloader -d FOLDER {' '.join(missing)}', or leave NExT-QA out"
        )
    if todays_tasks:
        from importlib.util import find_spec

        if find_spec("pywsd") is None:
            raise EvaluationError(f"{todays_tasks[0]} needs the package pywsd; divprune_paper_nextqa does without it")


def check_server(settings: ScoringSettings) -> None:
    """Ask whether EgoSchema's validation server is there, without sending it anything.

    Raises:
        EvaluationError: it is not.
    """
    try:
        json_over_http.answers(settings.egoschema_url)
    except NoAnswerError as error:
        raise EvaluationError(
            f"EgoSchema's full set is scored by a server, and {settings.egoschema_url} does not answer ({error}); it "
            "may be asleep: try again in a minute, give another address, or evaluate divprune_paper_egoschema_subset, "
            "whose answers are public"
        ) from error


def check_data(task: str, manager: PaperTaskManager) -> None:
    """Look for a task's questions, and for its videos; see `check`."""
    if manager.local is not None and data_key(task) is not None:
        check_local_data(task, manager)
    else:
        known = _TODAYS.get(task)
        if known and known.needs & {"judge", "wordnet"} and "HF_HOME" not in os.environ:
            raise EvaluationError(f"lmms-eval's task {task} needs HF_HOME to be set; {known.task} does without it")
        check_cached_data(task, manager)
