"""What settings cost: visual tokens, operations and key-value cache worked out, time to the first token measured."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch

from divprune.budget import Budget
from divprune.efficiency import Latency, ModelShape, interleave, model_shape, prefill_flop, prefill_seconds, schedule_of
from divprune.efficiency.schedule import DropSchedule
from divprune.errors import DivpruneError
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.tuning.asking import Asker, Reference
from divprune.experiments.tuning.search import PruningSetting
from divprune.huggingface import prune
from divprune.methods import get_method

TIMED_QUESTIONS = 3
ROUNDS = 3
MAX_SECONDS = 60.0
"""A question's measurements start no new round after this."""

BLIND = "blind"


@dataclass(frozen=True)
class SettingCost:
    """What a setting costs, means over questions.

    Attributes:
        visual_tokens: Those that a decoder layer sees, on average over layers.
        kv_bytes: Keys and values of the prompt in the cache.
        flop: Operations of the language model's prefill; None if the model's shape is not known.
    """

    visual_tokens: float
    kv_bytes: float
    flop: float | None


class Costs:
    """Works out what settings of one model cost on some questions."""

    def __init__(self, asker: Asker, places: Sequence[int]) -> None:
        """Take the model and the questions, whose references are known."""
        self._asker, self._places = asker, places
        config = asker.loaded.model.config
        text = config.get_text_config()
        self._num_layers: int = text.num_hidden_layers
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._layer_bytes: int = 2 * heads * head_size * torch.finfo(asker.loaded.model.dtype).bits // 8
        self._shape: ModelShape | None = None
        with suppress(DivpruneError, AttributeError):  # tokens and bytes are known all the same
            self._shape = model_shape(config)
        self._known: dict[PruningSetting | None, SettingCost] = {}

    def of(self, setting: PruningSetting | None) -> SettingCost:
        """Work out the cost of a setting; of None, that of the unpruned model."""
        if setting not in self._known:
            found = [self._of_question(setting, self._asker.references[place]) for place in self._places]
            flops = [each.flop for each in found if each.flop is not None]
            self._known[setting] = SettingCost(
                fmean(each.visual_tokens for each in found),
                fmean(each.kv_bytes for each in found),
                fmean(flops) if flops else None,
            )
        return self._known[setting]

    def ttft_seconds(
        self, settings: Sequence[PruningSetting], after_call: Callable[[], object]
    ) -> dict[str | PruningSetting, Latency]:
        """Measure times to the first token in turns, on the first questions; the processor is not in them.

        Args:
            settings: They stand beside the unpruned model and one that is shown no image.
            after_call: Called after each call, for a progress bar.

        Returns:
            Medians over rounds, one sample a question, by setting, `UNPRUNED` and `BLIND`.
        """
        rows: dict[str | PruningSetting, list[float]] = {}
        for place in self._places[:TIMED_QUESTIONS]:
            inputs, blind = self._asker.inputs(place), self._asker.blind_inputs(place)
            measures: dict[str | PruningSetting, Callable[[], float]] = {
                UNPRUNED: self._measure(None, place, inputs, after_call),
                BLIND: self._measure(None, place, blind, after_call),
            }
            measures |= {each: self._measure(each, place, inputs, after_call) for each in settings}
            found = interleave(list(measures.values()), repeats=ROUNDS, max_seconds=MAX_SECONDS)
            for name, latency in zip(measures, found, strict=True):
                rows.setdefault(name, []).append(latency.median)
        return {name: Latency(tuple(samples)) for name, samples in rows.items()}

    def num_timed_calls(self, num_settings: int) -> int:
        """Count the calls of `ttft_seconds`, at most."""
        return min(TIMED_QUESTIONS, len(self._places)) * (1 + ROUNDS) * (2 + num_settings)

    def pruned_ttft(self, setting: PruningSetting) -> float:
        """Measure the time to the first token of one setting, on the first questions."""
        return median(
            interleave([self._measure(setting, place, self._asker.inputs(place), int)], repeats=ROUNDS)[0].median
            for place in self._places[:TIMED_QUESTIONS]
        )

    def _measure(
        self, setting: PruningSetting | None, place: int, inputs: Mapping[str, Any], after_call: Callable[[], object]
    ) -> Callable[[], float]:
        model = self._asker.loaded.model

        def once() -> float:
            if setting is None:
                seconds = prefill_seconds(model, inputs)
            else:
                with prune(model, self._asker.config(setting, place)):
                    seconds = prefill_seconds(model, inputs)
            after_call()
            return seconds

        return once

    def _of_question(self, setting: PruningSetting | None, reference: Reference) -> SettingCost:
        total = sum(reference.visual_tokens)
        if setting is None:
            schedule = DropSchedule(total)
        else:
            method = get_method(setting.method)
            kept = sum(Budget(setting.keep_ratio).count(tokens) for tokens in reference.visual_tokens)
            schedule = schedule_of(method, Budget(num_keep=kept), total)
        counts = schedule.counts(self._num_layers)
        flop = None
        if self._shape is not None:
            flop = prefill_flop(self._shape.language, reference.text_tokens, schedule, "paper")
        kv_bytes = self._layer_bytes * sum(reference.text_tokens + count for count in counts)
        return SettingCost(fmean(counts), kv_bytes, flop)
