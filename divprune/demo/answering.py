"""Answer a question twice, once from all visual tokens and once from few of them, and measure both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from divprune.checkpoints import LoadedModel
from divprune.config import PruningConfig
from divprune.efficiency import Latency, interleave, prefill_seconds
from divprune.embedded.examples import Example
from divprune.huggingface import Pruning, PruningReport, prune
from divprune.methods import RandomTokens
from divprune.prompting import build_inputs, decode_answer

if TYPE_CHECKING:
    from torch import Tensor

MAX_MEASURING_SECONDS = 30.0
"""A question's measurements start no new round after this; large models on slow machines get fewer repeats."""


@dataclass(frozen=True)
class KeptAnswer:
    """The answer from some of the tokens, beside that from as many random ones.

    Attributes:
        title: how much is kept, in words.
        answer: from the kept tokens.
        pruned: what the pruned call did.
        answer_random: from random tokens of the same number; None if it was not wanted, or random is the method.
    """

    title: str
    answer: str
    pruned: PruningReport
    answer_random: str | None = None


@dataclass(frozen=True)
class AnswerPair:
    """The pruned and the unpruned answer to one question, and what each took.

    Attributes:
        example: the question and its media.
        answer: from the kept tokens.
        answer_unpruned: from all tokens; None if it was not wanted.
        pruned: what the pruned call did.
        prefill: time to the first token, pruned.
        prefill_unpruned: the same with all tokens; None if it was not wanted.
        selection_seconds: median time of the selection, which is part of `prefill`.
        answer_random: from random tokens of the same number; None if it was not wanted, or random is the method.
        others: the same for other numbers of tokens.
    """

    example: Example
    answer: str
    answer_unpruned: str | None
    pruned: PruningReport
    prefill: Latency
    prefill_unpruned: Latency | None
    selection_seconds: float
    answer_random: str | None = None
    others: tuple[KeptAnswer, ...] = ()

    @property
    def same_answer(self) -> bool:
        """Whether pruning left the answer as it was; two empty ones are no answer."""
        return self.stays(self.answer)

    def stays(self, answer: str | None) -> bool:
        """Whether an answer is that from all tokens; two empty ones are no answer."""
        return bool(answer) and answer == self.answer_unpruned

    def is_right(self, answer: str | None) -> bool:
        """Whether an answer is the one that is known to be right."""
        return answer is not None and answer == self.example.expected

    def kept(self, title: str) -> tuple[KeptAnswer, ...]:
        """Return the answers from the kept tokens, for each number of them.

        Args:
            title: how much is kept here, in words.
        """
        return (KeptAnswer(title, self.answer, self.pruned, self.answer_random), *self.others)

    @property
    def max_min_distance(self) -> float | None:
        """Smallest cosine distance between two kept tokens of one image or video; None if each kept only one."""
        distances = [item.max_min_distance for item in self.pruned.items]
        return min((distance for distance in distances if distance is not None), default=None)

    @property
    def kept_indices(self) -> list[int]:
        """Ascending indices into all visual tokens of the prompt, the first medium's tokens first."""
        kept, offset = [], 0
        for item in self.pruned.items:
            kept += [offset + index for index in item.kept_indices.tolist()]
            offset += item.num_visual_tokens
        return kept

    def as_json(self) -> dict[str, Any]:
        """Return what `divprune run --json` prints of a question."""
        return {
            "images": [medium.name for medium in self.example.media],
            "prompt": self.example.prompt,
            "answer_unpruned": self.answer_unpruned,
            "answer": self.answer,
            "answer_random": self.answer_random,
            "num_visual_tokens": self.pruned.num_visual_tokens,
            "num_encoded": self.pruned.num_encoded,
            "num_kept": self.pruned.num_kept,
            "kept_indices": self.kept_indices,
            "max_min_distance": self.max_min_distance,
            "prefill_seconds_unpruned": self.prefill_unpruned.median if self.prefill_unpruned else None,
            "prefill_seconds": self.prefill.median,
            "selection_seconds": self.selection_seconds,
        }


def answer(
    loaded: LoadedModel,
    example: Example,
    config: PruningConfig,
    *,
    compare: bool,
    max_new_tokens: int,
    repeats: int,
    beside_random: bool = False,
    others: Mapping[str, PruningConfig] = MappingProxyType({}),
) -> AnswerPair:
    """Answer one question, greedily, and measure.

    Args:
        loaded: the model and its processor.
        example: the question and its media.
        config: how the model is pruned.
        compare: also answer from all visual tokens.
        max_new_tokens: length limit of an answer.
        repeats: measurements of the prefill after a warm-up, pruned and unpruned in turn.
        beside_random: also answer from random tokens of the same number.
        others: further numbers of tokens to answer from, by their titles.
    """
    inputs = build_inputs(loaded, example.media, example.prompt)
    unpruned = generated(loaded, inputs, max_new_tokens) if compare else None

    def kept(title: str, how: PruningConfig) -> KeptAnswer:
        with prune(loaded.model, how) as pruning:
            text, report = generated(loaded, inputs, max_new_tokens), finished(pruning)
        control = random_control(how, report) if beside_random else None
        if control is None:
            return KeptAnswer(title, text, report)
        with prune(loaded.model, control):
            return KeptAnswer(title, text, report, generated(loaded, inputs, max_new_tokens))

    own, further = kept("", config), tuple(kept(title, how) for title, how in others.items())
    prefill, prefill_unpruned, selection = _measure(loaded, inputs, config, compare, repeats)
    times = (prefill, prefill_unpruned, selection.median)
    return AnswerPair(example, own.answer, unpruned, own.pruned, *times, own.answer_random, further)


def random_control(config: PruningConfig, pruned: PruningReport) -> PruningConfig | None:
    """Return how random tokens are kept, as many as another method kept; None where that is no number.

    Args:
        config: how the other method prunes.
        pruned: what its call did.
    """
    if isinstance(config.method, RandomTokens) or not (config.method.takes_budget and pruned.num_kept):
        return None
    if config.budget is not None and not config.method.may_keep_fewer:
        return replace(config, method=RandomTokens())
    found = pruned.num_kept / pruned.num_encoded
    return replace(config, method=RandomTokens(), keep_ratio=found, num_keep=None)


def finished(pruning: Pruning | None) -> PruningReport:
    """Return the report of the call that has just ended."""
    if pruning is None or pruning.last is None:
        raise RuntimeError("the pruned call left no report")
    return pruning.last


def generated(loaded: LoadedModel, inputs: dict[str, Any], max_new_tokens: int) -> str:
    """Return the model's greedy answer, pruned or not as the model is now."""
    generate: Callable[..., Tensor] = loaded.model.generate  # type: ignore[assignment]
    sequences = generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    return decode_answer(loaded, inputs, sequences)


def _measure(
    loaded: LoadedModel, inputs: Mapping[str, Any], config: PruningConfig, compare: bool, repeats: int
) -> tuple[Latency, Latency | None, Latency]:
    """Prefill pruned, prefill unpruned, and selection."""
    selection: list[float] = []

    def pruned() -> float:
        with prune(loaded.model, config) as pruning:
            seconds = prefill_seconds(loaded.model, inputs)
        selection.append(finished(pruning).selection_seconds)
        return seconds

    measurements: list[Callable[[], float]] = [pruned]
    if compare:
        measurements.append(lambda: prefill_seconds(loaded.model, inputs))
    latencies = interleave(measurements, repeats=repeats, max_seconds=MAX_MEASURING_SECONDS)
    after_warm_up = Latency(tuple(selection[1:]))
    return latencies[0], latencies[1] if compare else None, after_warm_up
