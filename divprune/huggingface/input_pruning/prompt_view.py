"""What a user hands to `generate` sees the prompt as the user knows it, although the model reads a shorter one.

Streamers, stopping criteria and logits processors get ids that begin with the original prompt. Only where there are
such is anything of ours called per decoded token.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import MaxLengthCriteria
from transformers.generation.streamers import BaseStreamer

from divprune.huggingface.gather_columns import restore_sequences

PROMPT_READERS = (NoRepeatNGramLogitsProcessor, PrefixConstrainedLogitsProcessor)
"""Processors that `generate` makes by itself and that read more of the prompt than which ids it holds."""


class OnOriginalPrompt:
    """A logits processor or stopping criterion that gets the ids with the original prompt in front."""

    def __init__(self, inner: Any, prompt_ids: Tensor, short_length: int) -> None:
        """Wraps `inner`; `prompt_ids` (B, L) stand for the first `short_length` columns."""
        self._inner = inner
        self._prompt_ids = prompt_ids
        self._short_length = short_length

    def __call__(self, input_ids: Tensor, scores: Any) -> Any:
        """Calls it."""
        return self._inner(restore_sequences(input_ids, self._prompt_ids, self._short_length), scores)

    def __getattr__(self, name: str) -> Any:
        """Everything else is as it was, such as the `eos_token_id` of a criterion."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)


class OriginalPromptStreamer(BaseStreamer):
    """A streamer whose first value, the prompt, is the original one; everything later goes straight through."""

    def __init__(self, inner: BaseStreamer, prompt_ids: Tensor) -> None:
        """Wraps `inner`."""
        self._inner = inner
        self._prompt_ids = prompt_ids

    def put(self, value: Tensor) -> None:
        """Takes the prompt."""
        self.__dict__["put"] = self._inner.put
        self._inner.put(self._prompt_ids.repeat_interleave(len(value) // len(self._prompt_ids), dim=0).cpu())

    def end(self) -> None:
        """Ends the stream."""
        self._inner.end()


@contextmanager
def original_prompt_shown(
    model: PreTrainedModel, inputs: dict[str, Any], prompt_ids: Tensor, short_length: int
) -> Iterator[dict[str, Any]]:
    """Shows the original prompt to what the user passed.

    Args:
        model: the model; it is as before on exit.
        inputs: the short call's arguments.
        prompt_ids: (B, L) the prompt as the user gave it.
        short_length: L', columns of the short prompt.

    Yields:
        The arguments to call with.
    """
    given = {name: list(inputs.get(name) or []) for name in ("logits_processor", "stopping_criteria")}

    def shown(inner: Any) -> Any:
        if isinstance(inner, MaxLengthCriteria):
            return MaxLengthCriteria(inner.max_length - prompt_ids.shape[1] + short_length)
        return OnOriginalPrompt(inner, prompt_ids, short_length)

    def processors(*args: Any, **kwargs: Any) -> LogitsProcessorList:
        kwargs["encoder_input_ids"] = prompt_ids
        made = build["_get_logits_processor"](*args, **kwargs)
        is_reader = [isinstance(one, PROMPT_READERS) or one in given["logits_processor"] for one in made]
        return LogitsProcessorList(shown(one) if reads else one for one, reads in zip(made, is_reader, strict=True))

    def criteria(*args: Any, **kwargs: Any) -> StoppingCriteriaList:
        made = build["_get_stopping_criteria"](*args, **kwargs)
        return StoppingCriteriaList(shown(one) if one in given["stopping_criteria"] else one for one in made)

    # The lists are complete only inside `generate`, where a processor of the user may replace one of the settings'.
    build: dict[str, Callable[..., Any]] = {
        name: getattr(model, name) for name in ("_get_logits_processor", "_get_stopping_criteria")
    }
    before = {name: model.__dict__[name] for name in build if name in model.__dict__}
    model.__dict__.update({"_get_logits_processor": processors, "_get_stopping_criteria": criteria})
    streamer = inputs.get("streamer")
    try:
        yield inputs if streamer is None else inputs | {"streamer": OriginalPromptStreamer(streamer, prompt_ids)}
    finally:
        for name in build:
            del model.__dict__[name]
        model.__dict__.update(before)
