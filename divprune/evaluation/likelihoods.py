"""What a model answers, and how likely another one, or the same one pruned, finds that answer.

No sampling and no decoding: the answer is put behind the prompt, and one pass tells the probability of each of its
tokens given those before ("teacher forcing").
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.model_inputs import CACHE, cache_in


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """What a model thinks of an answer.

    Attributes:
        log_likelihood: mean over the answer's tokens, in nats.
        is_own: whether the model's own greedy answer is the same, token by token.
    """

    log_likelihood: float
    is_own: bool


@torch.no_grad()
def greedy_answer(model: PreTrainedModel, inputs: Mapping[str, Any], max_new_tokens: int) -> Tensor:
    """Return what a model answers: the likeliest token each time, with no penalty for repetition.

    Args:
        model: pruned or not.
        inputs: what `generate` takes, one prompt.
        max_new_tokens: length limit.

    Returns:
        (n,) int64 token ids, that of the end included if it was reached.
    """
    generate: Any = model.generate
    greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    sequences: Tensor = generate(**inputs, max_new_tokens=max_new_tokens, **greedy)
    return sequences[0, inputs["input_ids"].shape[1] :].cpu()


@torch.no_grad()
def judge_answer(model: PreTrainedModel, inputs: Mapping[str, Any], answer: Tensor) -> JudgedAnswer:
    """Tell how likely a model finds an answer.

    Args:
        model: pruned or not.
        inputs: what `generate` takes, one prompt.
        answer: (n,) int64 token ids, at least one.

    Raises:
        ValueError: the answer is empty.
    """
    if not len(answer):
        raise ValueError("answer must have at least one token, got none")
    answer = answer.to(model.device)
    logits = _answer_logits(model, inputs, answer).float()
    of_answer = logits.log_softmax(dim=-1).gather(1, answer[:, None])
    return JudgedAnswer(float(of_answer.mean()), bool((logits.argmax(dim=-1) == answer).all()))


def _answer_logits(model: PreTrainedModel, inputs: Mapping[str, Any], answer: Tensor) -> Tensor:
    """(n, vocabulary) logits by which the answer's tokens are told."""
    last_alone = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    output = cast(Any, model)(**inputs, use_cache=True, **last_alone)
    first: Tensor = output.logits[0, -1:]
    if len(answer) == 1:
        return first
    # One prompt without padding needs no mask, and Qwen-VL counts positions from a mask as if it were of these tokens.
    cache = {CACHE: cache_in(output)}
    rest = cast(Any, model)(input_ids=answer[None, :-1], use_cache=True, **cache).logits
    return torch.cat([first, rest[0]])
