"""One model asked the same questions unpruned, without images, and pruned in many ways; nothing is asked twice.

Each image is encoded once (`EncoderMemory`), and what was found is kept in a log, so that a killed run goes on.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divprune.checkpoints import LoadedModel
from divprune.config import Positions, PruningConfig
from divprune.demo.answering import finished
from divprune.evaluation.likelihoods import greedy_answer, judge_answer
from divprune.evaluation.retention import Questions
from divprune.experiments.tuning.search import PruningSetting
from divprune.experiments.tuning.sharing import gathered, own_share
from divprune.huggingface import PruningReport, prune
from divprune.huggingface.encoding.encoder_memory import EncoderMemory, remembering
from divprune.jsonl_log import JsonlLog
from divprune.media import Medium, load_image
from divprune.methods import UniformGrid
from divprune.progress import Advance
from divprune.prompting import build_inputs
from divprune.serving.questions import BatchQuestion


@dataclass(frozen=True, slots=True)
class Reference:
    """What the unpruned model does with a question.

    Attributes:
        answer_ids: Its answer, token ids.
        log_likelihood: That it gives this answer, mean per token, in nats.
        blind_log_likelihood: That it gives this answer without seeing images.
        blind_is_same: Whether it answers the same without seeing images.
        visual_tokens: Of each image.
        text_tokens: The others of the prompt.
    """

    answer_ids: tuple[int, ...]
    log_likelihood: float
    blind_log_likelihood: float
    blind_is_same: bool
    visual_tokens: tuple[int, ...]
    text_tokens: int


@dataclass(frozen=True, slots=True)
class PrunedAnswer:
    """What a pruned model gives the unpruned answer, mean per token in nats, and whether it answers the same."""

    log_likelihood: float
    is_same: bool


@dataclass
class Asker:
    """Asks.

    Attributes:
        loaded: The model.
        questions: All of them, with images.
        positions: As for `prune`.
        max_new_tokens: Length limit of an answer.
        memory: Of the vision encoder's outputs.
        log: What earlier runs found is read from it.
        references: By place, what the unpruned model does.
        num_forwards: Questions asked of pruned models in this run, by all processes.
    """

    loaded: LoadedModel
    questions: Sequence[BatchQuestion]
    positions: Positions | None
    max_new_tokens: int
    memory: EncoderMemory
    log: JsonlLog
    references: dict[int, Reference] = field(default_factory=dict)
    num_forwards: int = 0
    _pruned: dict[tuple[PruningSetting, int], PrunedAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what earlier runs have found."""
        for fields in self.log.read(dict):
            place = fields["question"]
            if "reference" in fields:
                found = fields["reference"]
                lists = {name: tuple(found[name]) for name in ("answer_ids", "visual_tokens")}
                self.references[place] = Reference(**found | lists)
            else:
                self._pruned[PruningSetting(**fields["setting"]), place] = PrunedAnswer(**fields["pruned"])

    @property
    def num_known(self) -> int:
        """How much earlier runs have found."""
        return len(self.references) + len(self._pruned)

    def config(self, setting: PruningSetting | None, place: int) -> PruningConfig:
        """Return how a question is asked; `None` prunes nothing, by the same code."""
        if setting is None:
            return PruningConfig(UniformGrid(), keep_ratio=1.0)
        config = PruningConfig.parse(setting.method, keep_ratio=setting.keep_ratio, positions=self.positions)
        return config.for_sample(place)

    def ask_unpruned(self, places: Sequence[int], advance: Advance) -> float:
        """Find the unpruned model's answers and what it gives them, blind too; this process asks its share.

        Returns:
            Seconds that a question took.
        """
        found, started = {}, time.perf_counter()
        for place in own_share([place for place in places if place not in self.references]):
            found[place] = self._reference(place)
            self.log.append({"question": place, "reference": asdict(found[place])})
            advance(1)
        seconds = (time.perf_counter() - started) / max(1, len(found))
        self.references |= gathered(found)
        return seconds

    def ask(self, setting: PruningSetting, places: Sequence[int], advance: Advance) -> list[PrunedAnswer]:
        """Ask a pruned model what it has not been asked; this process asks its share."""
        new, found = [place for place in places if (setting, place) not in self._pruned], {}
        for place in own_share(new):
            found[setting, place] = self._judged(setting, place)
            self.log.append({"question": place, "setting": asdict(setting), "pruned": asdict(found[setting, place])})
            advance(1)
        if new:  # else the others, who know as much, do not come here either
            self._pruned |= gathered(found)
        self.num_forwards += len(new)
        return [self._pruned[setting, place] for place in places]

    def _judged(self, setting: PruningSetting, place: int) -> PrunedAnswer:
        answer = torch.tensor(self.references[place].answer_ids)
        inputs = self.inputs(place)
        with remembering(self.memory), prune(self.loaded.model, self.config(setting, place)):
            judged = judge_answer(self.loaded.model, inputs, answer)
        return PrunedAnswer(judged.log_likelihood, judged.is_own)

    def share_same(self, setting: PruningSetting, places: Sequence[int]) -> float:
        """Return the share of answers that stay the same under a setting, of questions that were asked."""
        return sum(self._pruned[setting, place].is_same for place in places) / len(places)

    def answer(self, setting: PruningSetting, place: int) -> tuple[str, PruningReport]:
        """Have a pruned model write its answer, and tell what it kept."""
        with remembering(self.memory), prune(self.loaded.model, self.config(setting, place)) as pruning:
            ids = greedy_answer(self.loaded.model, self.inputs(place), self.max_new_tokens)
        return self.text_of(ids), finished(pruning)

    def unpruned_answer(self, place: int) -> str:
        """Return what the unpruned model answered."""
        return self.text_of(torch.tensor(self.references[place].answer_ids))

    def text_of(self, ids: Tensor) -> str:
        """Return an answer as text."""
        return str(self.loaded.processor.batch_decode(ids[None], skip_special_tokens=True)[0]).strip()

    def media(self, place: int) -> tuple[Medium, ...]:
        """Read the images of a question.

        Raises:
            MediaError: one is missing or damaged.
        """
        return tuple(load_image(image) for image in self.questions[place].images)

    def inputs(self, place: int) -> dict[str, Any]:
        """Return what the model is given."""
        return build_inputs(self.loaded, self.media(place), self.questions[place].prompt)

    def blind_inputs(self, place: int) -> dict[str, Any]:
        """Return what the model is given without images."""
        return build_inputs(self.loaded, (), self.questions[place].prompt)

    def known_questions(self, places: Sequence[int]) -> Questions:
        """Return what is known of questions before anything is pruned; those about the same images belong together."""
        groups: dict[tuple[object, ...], int] = {}
        own = [groups.setdefault(self.questions[place].images, len(groups)) for place in places]
        found = [self.references[place] for place in places]
        unpruned = np.array([each.log_likelihood for each in found])
        blind = np.array([each.blind_log_likelihood for each in found])
        return Questions(unpruned, blind, np.array(own, dtype=np.int64))

    def _reference(self, place: int) -> Reference:
        model, inputs = self.loaded.model, self.inputs(place)
        with remembering(self.memory), prune(model, self.config(None, place)) as pruning:
            answer = greedy_answer(model, inputs, self.max_new_tokens)
            judged = judge_answer(model, inputs, answer)
        blind = judge_answer(model, self.blind_inputs(place), answer)
        items = () if pruning.last is None else pruning.last.items
        visual = tuple(item.num_visual_tokens for item in items)
        text = int(inputs["attention_mask"].sum()) - sum(visual)
        ids = tuple(answer.tolist())
        return Reference(ids, judged.log_likelihood, blind.log_likelihood, blind.is_own, visual, text)
