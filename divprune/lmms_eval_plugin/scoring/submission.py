"""EgoSchema's full set: its answers are not public, its validation server tells how many are right.

The address is a setting; what was sent is kept, so that a server that fails costs no second run of the model.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divprune.errors import EvaluationError
from divprune.json_over_http import NoAnswerError, post_json
from divprune.lmms_eval_plugin.scoring.settings import current
from divprune.outputs import FileKind, safe_output, write_whole

SUBMISSION_FILE = "egoschema-submission.json"
_SUBMISSION = FileKind("submission of EgoSchema", SUBMISSION_FILE, rb'\A\{(\s*"[^"]+": -?\d+|\}\Z)')
_RESULT = re.compile(r"Total result: \d+ correct, \d+ wrong, \d+ missing, \d+ invalid, accuracy: ([\d.]+)")


def egoschema(results: Sequence[Mapping[str, int]], args: Any = None) -> float:
    """Send all answers and return the percentage of right ones.

    Args:
        results: from a video's name to the option's number, one a question.
        args: of lmms-eval's own command, whose output folder then takes the submission.

    Raises:
        EvaluationError: the server does not answer, or not with an accuracy.
    """
    answers = {name: option for result in results for name, option in result.items()}
    file = _keep(answers, args)
    url = current().egoschema_url
    try:
        text = _sent(url, answers)
    except NoAnswerError as error:
        raise EvaluationError(f"EgoSchema's server at {url} does not answer ({error}); {_advice(file)}") from error
    found = _RESULT.search(text)
    if found is None:
        raise EvaluationError(f"EgoSchema's server at {url} said {text[:200]!r}, without accuracy; {_advice(file)}")
    return 100.0 * float(found[1])


def _sent(url: str, answers: Mapping[str, int]) -> str:
    settings = current()
    for tried in range(1, settings.tries + 1):
        try:
            return post_json(url, answers, {})
        except NoAnswerError as error:
            if error.final or tried == settings.tries:
                raise
        # The server sleeps while nobody asks, and takes a minute to wake.
        time.sleep(settings.wait_seconds * tried)
    raise AssertionError("unreachable")


def _keep(answers: Mapping[str, int], args: Any) -> Path:
    output = getattr(args, "output_path", None)
    settings = current()
    folder = settings.kept_in if settings.folder or not output else Path(output) / "submissions"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SUBMISSION_FILE
    write_whole(safe_output("output", file, _SUBMISSION), json.dumps(answers, indent=1))
    return file


def _advice(file: Path) -> str:
    return f"the answers are kept in {file}: send them there again, or evaluate divprune_paper_egoschema_subset"
