"""The scenes suites: every method answers the same questions about held-out images, or videos.

It exists so that every method is exercised end to end and compared without a download. It is a bench on toy scenes and
a toy model: it does not tell which method is best on photographs or films.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, cast

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import Question
from divprune.errors import DivpruneError
from divprune.evaluation.resampling import Array
from divprune.evaluation.retention import Questions, loss
from divprune.evaluation.scenes.baselines import UNPRUNED, WITHOUT_PRUNING
from divprune.evaluation.scenes.bench import IMAGE_BENCH, SceneBench
from divprune.evaluation.scenes.cases import Case, cost_percent
from divprune.evaluation.scenes.questions import Batch, Feed, batches, questions_about
from divprune.evaluation.scenes.scores import Answered, scores
from divprune.huggingface import Pruning, prune
from divprune.jsonl_log import JsonlLog
from divprune.methods import method_title
from divprune.methods.registry import fidelity_of
from divprune.methods.vision_inputs import VISION_NEEDS

SCENES_PER_BATCH = 8
RETENTION = ("retention_percent", "retention_low_percent", "retention_high_percent")


def notice() -> str:
    """Say in two sentences what numbers about images are worth: who answers, and about what."""
    return IMAGE_BENCH.notice()


@dataclass(frozen=True)
class SuiteEntry:
    """What a case answered to one batch of questions.

    Attributes:
        case: the case's key.
        batch: the batch's key.
        predictions: one a question; empty if the case was refused.
        mean_kept: visual tokens kept of an image or video, on average.
        feed: what the model got of the images or videos.
        refusal: why the case cannot run; None if it can.
        log_likelihoods: that the case gives the unpruned model's answers, mean per token in nats, one a question; empty
            if retention is not asked for.
    """

    case: str
    batch: str
    predictions: tuple[str, ...] = ()
    mean_kept: float = 0.0
    feed: str = ""
    refusal: str | None = None
    log_likelihoods: tuple[float, ...] = ()


class Suite:
    """Asks about held-out images or videos: each is encoded once, and each case prunes the same visual tokens.

    Attributes:
        num_scenes: how many.
        num_units: pieces of work for each case.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        num_scenes: int,
        log: JsonlLog | None = None,
        bench: SceneBench = IMAGE_BENCH,
        with_retention: bool = False,
    ) -> None:
        """Prepare.

        Args:
            model: a model that answers about scenes, such as the embedded one.
            processor: its processor.
            num_scenes: how many test images or videos, from the first on.
            log: where answers go, and come from if they are there already; None to keep them in memory only.
            bench: what is asked about.
            with_retention: whether the unpruned model's answers are judged by every case too, which takes about as long
                as answering does.

        Raises:
            EvaluationError: the log is broken.
        """
        self.num_scenes, self.num_units = num_scenes, len(bench.parts) * -(-num_scenes // SCENES_PER_BATCH)
        self._bench, self._with_retention = bench, with_retention
        self._model, self._processor, self._log = model, processor, log
        self._entries = {(each.case, each.batch): each for each in (log.read(_parse) if log else ())}

    @property
    def num_done(self) -> int:
        """Pieces of work whose answers are there."""
        return len(self._entries)

    @cached_property
    def workload(self) -> Workload:
        """The mean prompt of the first scenes' questions, captions left out."""
        first = next(batches(self._model, self._processor, self._scenes(0), self._bench))
        visual = len(first.visual_tokens[0])
        return Workload(round(float(first.with_media["attention_mask"].sum(dim=1).float().mean())) - visual, visual)

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
            Answered(place, question, prediction)
            for entry in self._entries_of(case)
            for (place, question), prediction in zip(self._questions[entry.batch], entry.predictions, strict=True)
        ]

    @cached_property
    def _questions(self) -> dict[str, list[tuple[int, Question]]]:
        """The questions of each batch, with the places of their scenes."""
        found = {}
        for first in range(0, self.num_scenes, SCENES_PER_BATCH):
            scenes = self._scenes(first)
            for name, part in zip(self._names(first), self._bench.parts, strict=True):
                found[name] = [
                    (first + place, question) for place, question in questions_about(scenes, part, self._bench)
                ]
        return found

    def _scenes(self, first: int) -> list[Any]:
        return [self._bench.draw(seed) for seed in range(first, min(first + SCENES_PER_BATCH, self.num_scenes))]

    def _names(self, first: int) -> list[str]:
        """Name the batches of some scenes, one for each part of the questions."""
        last = min(first + SCENES_PER_BATCH, self.num_scenes) - 1
        return [f"{part.name} {first}-{last}" for part in self._bench.parts]

    def _answer(self, cases: Sequence[Case], first: int, after_unit: Callable[[], None]) -> None:
        names = self._names(first)
        if all(self._entries.get((case.key, name)) for case in cases for name in names):
            for _ in range(len(cases) * len(names)):
                after_unit()
            return
        for name, batch in zip(
            names, batches(self._model, self._processor, self._scenes(first), self._bench), strict=True
        ):
            answers = batch.answer_ids("tokens") if self._with_retention else None
            for case in cases:
                if self._entries.get((case.key, name)) is None:
                    self._add(self._entry(case, name, batch, first, answers))
                after_unit()

    def _add(self, entry: SuiteEntry) -> None:
        if self._log is not None:
            self._log.append(asdict(entry))
        self._entries[entry.case, entry.batch] = entry

    def _entry(self, case: Case, name: str, batch: Batch, first: int, answers: Tensor | None) -> SuiteEntry:
        earlier = self._entries.get((case.key, self._names(0)[0]))
        if earlier is None:
            return _first_entry(case, name, batch, answers)
        if earlier.refusal is not None:
            return replace(earlier, batch=name)
        return _entry(case, name, batch, first, cast(Feed, earlier.feed), answers)

    def _row(self, case: Case, with_cider: bool) -> dict[str, Any]:
        entries = [] if case.refusal else self._entries_of(case)
        refusal = case.refusal or next((entry.refusal for entry in entries if entry.refusal), None)
        row: dict[str, Any] = {
            "method": method_title(case.name),
            "fidelity": fidelity_of(case.name),
            "matching": case.matching,
            "keep_ratio": case.keep_ratio,
            "refusal": refusal,
        }
        if refusal is not None:
            return row | {"num_kept": None, "flop_percent": None}
        mean_kept = fmean(entry.mean_kept for entry in entries)
        cost = cost_percent(case, mean_kept, model_shape(self._model.config), self.workload)
        row |= {"num_kept": mean_kept, "flop_percent": cost}
        row |= scores(self.answered(case), self.num_scenes, with_cider, self._bench.kinds)
        return row | self._retention(case) if self._with_retention else row

    def _retention(self, case: Case) -> dict[str, float | None]:
        """Tell what a case retains of what images tell, in percent, for a record; None where they tell nothing."""
        unpruned, blind = (self._log_likelihoods(Case(name)) for name in (UNPRUNED, self._bench.withheld))
        scenes = np.array([place for name in self._questions for place, _ in self._questions[name]], dtype=np.int64)
        try:
            lost = loss(Questions(unpruned, blind, scenes), self._log_likelihoods(case))
        except ValueError:
            return dict.fromkeys(RETENTION)
        return dict(zip(RETENTION, (100 * (1 - each) for each in (lost.value, lost.high, lost.low)), strict=True))

    def _log_likelihoods(self, case: Case) -> Array:
        return np.array([each for entry in self._entries_of(case) for each in entry.log_likelihoods])

    def _entries_of(self, case: Case) -> list[SuiteEntry]:
        found = [self._entries.get((case.key, name)) for name in self._questions]
        return [entry for entry in found if entry is not None]


def _parse(line: Any) -> SuiteEntry:
    return SuiteEntry(**line | {name: tuple(line[name]) for name in ("predictions", "log_likelihoods")})


def _first_entry(case: Case, name: str, batch: Batch, answers: Tensor | None) -> SuiteEntry:
    """Find out whether a case can run, and whether on visual tokens or only on pixels."""
    if case.name == batch.bench.withheld:
        return _entry(case, name, batch, 0, "nothing", answers)
    first: Feed = "tokens" if case.method is None or batch.bench.modality == "image" else "placed"
    try:
        return _entry(case, name, batch, 0, first, answers)
    except (DivpruneError, ValueError, NotImplementedError):
        pass
    try:
        return _entry(case, name, batch, 0, "pixels", answers)
    except (DivpruneError, ValueError, NotImplementedError) as error:
        return SuiteEntry(case.key, name, refusal=" ".join(str(error).split()))


def _entry(case: Case, name: str, batch: Batch, first: int, feed: Feed, answers: Tensor | None) -> SuiteEntry:
    """Have a case answer, and judge the unpruned model's answers if they are given."""
    pruned: AbstractContextManager[Pruning | None] = nullcontext()
    if case.name not in WITHOUT_PRUNING:
        if case.method is None:
            raise ValueError("method must be given where tokens are pruned, got None")
        if feed == "placed" and case.method.needs & VISION_NEEDS:
            raise ValueError(f"feed must be pixels for a method that reads the vision encoder, got {feed!r}")
        method = case.method.for_sample(first)
        how: dict[str, Any] = {"scope": case.scope, "positions": case.positions, "encoder": case.encoder}
        pruned = prune(batch.model, method, num_keep=case.num_keep, **how)
    with pruned as pruning:
        predictions = tuple(batch.generate(feed))
        report = None if pruning is None else pruning.last
        judged = () if answers is None else tuple(batch.judged(feed, answers))
    if pruning is None:
        kept = 0.0 if feed == "nothing" else float(len(batch.visual_tokens[0]))
    else:
        kept = fmean(item.num_kept for item in report.items) if report else 0.0
    return SuiteEntry(case.key, name, predictions, kept, feed, None, judged)
