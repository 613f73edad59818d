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
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

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


_GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


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
    sequences: Tensor = generate(**inputs, max_new_tokens=max_new_tokens, **_GREEDY)
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


@torch.no_grad()
def judge_answers(model: PreTrainedModel, inputs: Mapping[str, Any], answers: Tensor, mask: Tensor) -> list[float]:
    """Tell how likely a model finds the answers of a batch, by `generate` held to them token by token.

    It takes whatever `generate` takes, padded prompts too, and costs a step a token; `judge_answer` is for one prompt.

    Args:
        model: pruned or not.
        inputs: what `generate` takes, b prompts.
        answers: (b, n) int64 token ids, those of a short answer filled up behind.
        mask: (b, n) bool, true for the answer's own tokens, of which each has one at least.

    Returns:
        Of each answer the mean log-likelihood per token, in nats.
    """
    forced = _Forced(answers.to(model.device))
    generate: Any = model.generate
    # An end that the answers hold must not end the batch before the longest of them.
    length = {"max_new_tokens": answers.shape[1], "min_new_tokens": 0, "eos_token_id": None}
    generate(**inputs, **_GREEDY, **length, logits_processor=LogitsProcessorList([forced]))
    log_likelihoods = torch.stack(forced.log_likelihoods, dim=1).cpu()
    found: list[float] = ((log_likelihoods * mask).sum(dim=1) / mask.sum(dim=1)).tolist()
    return found


def answer_mask(answers: Tensor, model: PreTrainedModel) -> Tensor:
    """Return which tokens of generated answers (b, n) are their own: those up to their end, it included, as bool."""
    ends = model.generation_config.eos_token_id
    known = torch.tensor([ends] if isinstance(ends, int) else list(ends or ()), dtype=torch.int64)
    is_end = torch.isin(answers.cpu(), known)
    return is_end.cumsum(dim=1) - is_end.long() == 0


class _Forced(LogitsProcessor):
    """Makes answers the only choice, and notes how likely each of their tokens was: one (b,) tensor a step."""

    def __init__(self, answers: Tensor) -> None:
        self._answers = answers
        self.log_likelihoods: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self._answers[:, len(self.log_likelihoods), None]
        self.log_likelihoods.append(scores.float().log_softmax(dim=-1).gather(1, token)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


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
