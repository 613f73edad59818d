"""Models that give the answers they are told to, for lmms-eval, and note what they were asked and shown."""

from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate

from divprune.lmms_eval_plugin.data.local_data import PaperTaskManager


class ScriptedSimple(lmms):
    """Answers by task and document; notes the prompt and the media of each."""

    is_simple = True

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__()
        self.answers = answers
        self.device = torch.device("cpu")
        self.prompts: dict[tuple[str, int], str] = {}
        self.shown: dict[tuple[str, int], list[Any]] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        said = []
        for request in requests:
            prompt, media, task, number = self._read(request.args)
            self.prompts[task, number], self.shown[task, number] = prompt, media
            said.append(self.answers[task][number])
        return said

    def _read(self, arguments: tuple[Any, ...]) -> tuple[str, list[Any], str, int]:
        prompt, _, visual, number, task, split = arguments
        return prompt, visual(self.task_dict[task][split][number]), task, number

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        raise NotImplementedError


class ScriptedChat(ScriptedSimple):
    """The same for chat models: one turn, media before the text."""

    is_simple = False

    def _read(self, arguments: tuple[Any, ...]) -> tuple[str, list[Any], str, int]:
        _, messages, _, number, task, split = arguments
        (turn,) = messages(self.task_dict[task][split][number])
        *media, text = turn["content"]
        assert text["type"] == "text"
        return text["text"], [each["url"] for each in media], task, number


def evaluate(model: ScriptedSimple, tasks: list[str], manager: PaperTaskManager, **options: Any) -> dict[str, Any]:
    """lmms-eval's own evaluation, without its bootstrap."""
    found = simple_evaluate(model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)
    assert isinstance(found, dict)
    return found


def metric(results: dict[str, Any], task: str, name: str) -> float:
    return float(results["results"][task][f"{name},none"])
