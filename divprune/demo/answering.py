"""Answer a question twice, once from all visual tokens and once from few of them, and measure both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divprune.checkpoints import LoadedModel
from divprune.config import PruningConfig
from divprune.efficiency import Latency, interleave, prefill_seconds
from divprune.embedded.examples import Example
from divprune.huggingface import Pruning, PruningReport, prune
from divprune.prompting import build_inputs, decode_answer

if TYPE_CHECKING:
    from torch import Tensor

MAX_MEASURING_SECONDS = 30.0
"""A question's measurements start no new round after this; large models on slow machines get fewer repeats."""


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
    """

    example: Example
    answer: str
    answer_unpruned: str | None
    pruned: PruningReport
    prefill: Latency
    prefill_unpruned: Latency | None
    selection_seconds: float

    @property
    def same_answer(self) -> bool:
        """Whether pruning left the answer as it was."""
        return self.answer == self.answer_unpruned

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
            "num_visual_tokens": self.pruned.num_visual_tokens,
            "num_kept": self.pruned.num_kept,
            "kept_indices": self.kept_indices,
            "max_min_distance": self.max_min_distance,
            "prefill_seconds_unpruned": self.prefill_unpruned.median if self.prefill_unpruned else None,
            "prefill_seconds": self.prefill.median,
            "selection_seconds": self.selection_seconds,
        }


def answer(
    loaded: LoadedModel, example: Example, config: PruningConfig, *, compare: bool, max_new_tokens: int, repeats: int
) -> AnswerPair:
    """Answer one question, greedily, and measure.

    Args:
        loaded: the model and its processor.
        example: the question and its media.
        config: how the model is pruned.
        compare: also answer from all visual tokens.
        max_new_tokens: length limit of an answer.
        repeats: measurements of the prefill after a warm-up, pruned and unpruned in turn.
    """
    inputs = build_inputs(loaded, example.media, example.prompt)
    unpruned = _generate(loaded, inputs, max_new_tokens) if compare else None
    with prune(loaded.model, config) as pruning:
        text = _generate(loaded, inputs, max_new_tokens)
        report = finished(pruning)
    prefill, prefill_unpruned, selection = _measure(loaded, inputs, config, compare, repeats)
    return AnswerPair(example, text, unpruned, report, prefill, prefill_unpruned, selection.median)


def finished(pruning: Pruning | None) -> PruningReport:
    """Return the report of the call that has just ended."""
    if pruning is None or pruning.last is None:
        raise RuntimeError("the pruned call left no report")
    return pruning.last


def _generate(loaded: LoadedModel, inputs: dict[str, Any], max_new_tokens: int) -> str:
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
