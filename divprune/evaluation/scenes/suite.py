"""The scenes suite: every method answers the same questions about held-out scenes.

It exists so that every method is exercised end to end and compared without a download. It is a bench on toy scenes and
a toy model: it does not tell which method is best on photographs.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from statistics import fmean
from typing import Any, get_args

from transformers import PreTrainedModel

from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import Question, Scene, scene
from divprune.errors import DivpruneError
from divprune.evaluation.answer_log import AnswerLog, Entry
from divprune.evaluation.scenes.cases import UNPRUNED, WITHHELD, Case, cost_percent
from divprune.evaluation.scenes.questions import Batch, Feed, asked_about, batches
from divprune.evaluation.scenes.scores import Answered, scores
from divprune.huggingface import prune
from divprune.methods import Method, method_title

NOTICE = (
    "A bench on toy scenes: generated shapes, answered by the embedded model of 1.6 M parameters. It compares methods "
    "end to end and says little about photographs."
)
SCENES_PER_BATCH = 8


class Suite:
    """Asks about held-out scenes.

    Attributes:
        num_scenes: how many.
        num_units: pieces of work for each case.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, num_scenes: int, log: AnswerLog) -> None:
        """Prepare.

        Args:
            model: a model that answers about scenes, such as the embedded one.
            processor: its processor.
            num_scenes: how many test scenes, from the first on.
            log: where answers go, and come from if they are there already.
        """
        self.num_scenes, self.num_units = num_scenes, 2 * -(-num_scenes // SCENES_PER_BATCH)
        self._model, self._processor, self._log = model, processor, log

    @cached_property
    def workload(self) -> Workload:
        """The mean prompt of the first scenes' questions, captions left out."""
        first = next(batches(self._model, self._processor, self._scenes(0)))
        visual = len(first.visual_tokens[0])
        return Workload(round(float(first.with_picture["attention_mask"].sum(dim=1).float().mean())) - visual, visual)

    def run(
        self, cases: Sequence[Case], after_unit: Callable[[], None] = lambda: None, with_cider: bool = True
    ) -> list[dict[str, Any]]:
        """Answer whatever is not in the log, and score.

        Args:
            cases: the rows.
            after_unit: called after each piece of work, `num_units` times a different `Case.key`.
            with_cider: see `scores`.

        Returns:
            One row a case, ready for a record.
        """
        keys = {case.key: case for case in cases if case.refusal is None}
        for number in range(0, self.num_scenes, SCENES_PER_BATCH):
            self._answer(list(keys.values()), number, after_unit)
        return [self._row(case, with_cider) for case in cases]

    def answered(self, case: Case) -> list[Answered]:
        """Return every answer of a case that has run and was not refused."""
        return [
            Answered(place, question, said)
            for entry in self._entries(case)
            for (place, question), said in zip(self._asked[entry.batch], entry.said, strict=True)
        ]

    @cached_property
    def _asked(self) -> dict[str, list[tuple[int, Question]]]:
        """The questions of each batch, with the places of their scenes."""
        asked = {}
        for first in range(0, self.num_scenes, SCENES_PER_BATCH):
            scenes = self._scenes(first)
            for name, captions in zip(self._names(first), (False, True), strict=True):
                asked[name] = [(first + place, question) for place, question in asked_about(scenes, captions)]
        return asked

    def _scenes(self, first: int) -> list[Scene]:
        return [scene(seed, "test") for seed in range(first, min(first + SCENES_PER_BATCH, self.num_scenes))]

    def _names(self, first: int) -> tuple[str, str]:
        """Name the two batches of some scenes: short questions and captions."""
        last = min(first + SCENES_PER_BATCH, self.num_scenes) - 1
        return f"answers {first}-{last}", f"captions {first}-{last}"

    def _answer(self, cases: Sequence[Case], first: int, after_unit: Callable[[], None]) -> None:
        names = self._names(first)
        if all(self._log.get(case.key, name) for case in cases for name in names):
            for _ in range(len(cases) * len(names)):
                after_unit()
            return
        for name, batch in zip(names, batches(self._model, self._processor, self._scenes(first)), strict=True):
            for case in cases:
                if self._log.get(case.key, name) is None:
                    self._log.add(self._entry(case, name, batch, first))
                after_unit()

    def _entry(self, case: Case, name: str, batch: Batch, first: int) -> Entry:
        earlier = self._log.get(case.key, self._names(0)[0])
        if earlier is None:
            return _first_entry(case, name, batch)
        if earlier.refusal is not None:
            return replace(earlier, batch=name)
        return _entry(case, name, batch, first, _feed(earlier.feed))

    def _row(self, case: Case, with_cider: bool) -> dict[str, Any]:
        entries = [] if case.refusal else self._entries(case)
        refusal = case.refusal or next((entry.refusal for entry in entries if entry.refusal), None)
        row: dict[str, Any] = {
            "method": method_title(case.name),
            "matching": case.matching,
            "keep_ratio": case.keep_ratio,
            "refusal": refusal,
        }
        if refusal is not None:
            return row | {"num_kept": None, "flop_percent": None}
        mean_kept = fmean(entry.mean_kept for entry in entries)
        cost = cost_percent(case, mean_kept, model_shape(self._model.config), self.workload)
        row |= {"num_kept": mean_kept, "flop_percent": cost}
        return row | scores(self.answered(case), self.num_scenes, with_cider)

    def _entries(self, case: Case) -> list[Entry]:
        found = [self._log.get(case.key, name) for name in self._asked]
        return [entry for entry in found if entry is not None]


def _first_entry(case: Case, name: str, batch: Batch) -> Entry:
    """Find out whether a case can run, and whether on visual tokens or only on pixels."""
    if case.name == WITHHELD:
        return _entry(case, name, batch, 0, "nothing")
    try:
        return _entry(case, name, batch, 0, "tokens")
    except (DivpruneError, ValueError, NotImplementedError):
        pass
    try:
        return _entry(case, name, batch, 0, "pixels")
    except (DivpruneError, ValueError, NotImplementedError) as error:
        return Entry(case.key, name, refusal=" ".join(str(error).split()))


def _entry(case: Case, name: str, batch: Batch, first: int, feed: Feed) -> Entry:
    if case.name in (UNPRUNED, WITHHELD):
        kept = 0 if feed == "nothing" else len(batch.visual_tokens[0])
        return Entry(case.key, name, tuple(batch.say(feed)), float(kept), feed)
    with prune(batch.model, _drawn(case.method, first), num_keep=case.num_keep) as pruning:
        said = tuple(batch.say(feed))
    kept_of_items = [item.num_kept for item in pruning.last.items] if pruning.last else []
    return Entry(case.key, name, said, fmean(kept_of_items), feed)


def _drawn(method: Method | None, first: int) -> Method:
    """Return a method whose random draws, if it makes any, are those of some scenes."""
    if method is None:
        raise ValueError("method must be given where tokens are pruned, got None")
    if "seed" not in {each.name for each in fields(method)}:
        return method
    changed: Any = {"seed": getattr(method, "seed", 0) * 1_000_003 + first}
    return replace(method, **changed)


def _feed(name: str) -> Feed:
    return next(feed for feed in get_args(Feed) if feed == name)
