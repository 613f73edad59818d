"""A model of lmms-eval whose answers survive a crash, whatever the model is.

lmms-eval's own cache keeps answers only after the last one is there. Here requests are handed on in groups; the answers
of a group are on disk before the next one is asked, and groups are the same after a restart, so that an interrupted run
ends with what an uninterrupted one would have answered.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts, unwrap_generation_output
from lmms_eval.api.model import lmms

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.models.weighing import weighed
from divprune.lmms_eval_plugin.runs.answers import Answers, Response, request_key
from divprune.lmms_eval_plugin.runs.retention import RetentionJudge

FAILED = "[LMMS_EVAL_REQUEST_FAILED"
"""How lmms-eval's client of servers begins an answer that is none."""


class ResumingModel(lmms):
    """Asks another model what no earlier run has asked."""

    def __init__(
        self,
        model: Any,
        answers: Answers,
        group_size: int,
        after_group: Callable[[int], None] = lambda _: None,
        judge: RetentionJudge | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: any `lmms` model.
            answers: where its answers go, and come from.
            group_size: requests in a group; a multiple of the model's batch.
            after_group: called with the number of requests that have just been answered.
            judge: judges the unpruned model's answers to the same requests, group by group.
        """
        super().__init__()
        self.is_simple = model.is_simple
        self._model, self._answers = model, answers
        self._group_size, self._after_group, self._judge = group_size, after_group, judge
        self._rank, self._world_size = model.rank, model.world_size
        self.accelerator = getattr(model, "accelerator", None)
        self.task_dict = model.task_dict
        self.num_asked = 0

    @property
    def device(self) -> Any:
        """Where the evaluator gathers counts."""
        return getattr(self._model, "device", "cpu")

    def clean(self) -> None:
        """Keep the model: other runs use it too."""

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, from the file where it knows the answer."""
        return self._answered("generate_until", requests)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Weigh continuations, from the file where it knows them."""
        return self._answered("loglikelihood", requests)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests of several rounds, from the file where it knows the answers."""
        return self._answered("generate_until_multi_round", requests)

    def _answered(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        keys = _keys(kind, requests)
        for places in self._groups(requests, keys):
            left = [place for place in places if self._answers.get(keys[place]) is None]
            if left:
                self._ask(kind, [requests[place] for place in left], [keys[place] for place in left])
            if self._judge is not None and kind == "generate_until":
                self._judge.judge([requests[place] for place in places], [keys[place] for place in places], self._text)
            self._after_group(len(places))
        return [self._response(kind, key) for key in keys]

    def _groups(self, requests: Sequence[Any], keys: Sequence[str]) -> Iterator[list[int]]:
        """Places of requests in groups: each key once, equal settings together, short questions first."""
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        order = sorted(first.values(), key=lambda place: (*_shape(requests[place]), place))
        for start in range(0, len(order), self._group_size):
            yield order[start : start + self._group_size]

    def _ask(self, kind: str, requests: list[Any], keys: list[str]) -> None:
        responses = getattr(self._model, kind)(requests)
        answers = [_as_response(key, response) for key, response in zip(keys, responses, strict=True)]
        failed = [pair for pair in zip(requests, answers, strict=True) if _is_failure(pair[1])]
        measure = getattr(self._model, "take_measurements", list)
        self._answers.add([each for each in answers if not _is_failure(each)], [_plain(one) for one in measure()])
        for request, answer in failed:
            raise EvaluationError(
                f"document {request.doc_id} of {request.task_name} got no answer from the server: "
                f"{' '.join(answer.response.split())}; run the same command again when it is well"
            )
        self.num_asked += len(requests)

    def _text(self, key: str) -> Any:
        found = self._answers.get(key)
        return None if found is None else found.response

    def _response(self, kind: str, key: str) -> Any:
        found = self._answers.get(key)
        if found is None:
            raise RuntimeError(f"request {key} was not answered")
        if kind == "loglikelihood":
            return weighed(*found.response)
        if isinstance(found.response, str):
            return GenerationResult(found.response, TokenCounts(found.input_tokens, found.output_tokens))
        return found.response


def _keys(kind: str, requests: Sequence[Any]) -> list[str]:
    """One key a request. What the evaluator adds to give all processes equally many repeats the last request's."""
    seen: Counter[int] = Counter()
    keys: list[str] = []
    for request in requests:
        if (request.metadata or {}).get("__padding_only__"):
            keys.append(keys[-1])
            continue
        keys.append(request_key(kind, request, seen[id(request)]))
        seen[id(request)] += 1
    return keys


def _shape(request: Any) -> tuple[str, int]:
    """Return what requests of one batch should share: the settings of generation, and about the length."""
    settings = next((part for part in request.args if isinstance(part, dict)), {})
    words = next((part for part in request.args if isinstance(part, str)), "")
    return repr(sorted(settings.items(), key=str)), len(words)


def _as_response(key: str, response: Any) -> Response:
    text, tokens = unwrap_generation_output(response)
    if tokens is None:
        return Response(key, text)
    return Response(key, text, tokens.input_tokens, tokens.output_tokens)


def _is_failure(answer: Response) -> bool:
    return isinstance(answer.response, str) and answer.response.startswith(FAILED)


def _plain(measurement: Any) -> dict[str, Any]:
    """Return the fields of a measurement, ready for JSON."""
    fields = getattr(measurement, "__dataclass_fields__", None)
    return dict(measurement) if fields is None else {name: getattr(measurement, name) for name in fields}
