"""The scenes suites: every method answers the same questions about held-out images, or videos.

It exists so that every method is exercised end to end and compared without a download. It is a bench on toy scenes and
a toy model: it does not tell which method is best on photographs or films.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, cast

from transformers import PreTrainedModel

from divprune.efficiency.shapes import model_shape
from divprune.efficiency.workloads import Workload
from divprune.embedded import Question
from divprune.errors import DivpruneError
from divprune.evaluation.scenes.baselines import WITHOUT_PRUNING
from divprune.evaluation.scenes.bench import IMAGE_BENCH, SceneBench
from divprune.evaluation.scenes.cases import Case, cost_percent
from divprune.evaluation.scenes.questions import Batch, Feed, batches, questions_about
from divprune.evaluation.scenes.scores import Answered, scores
from divprune.huggingface import prune
from divprune.jsonl_log import JsonlLog
from divprune.methods import method_title
from divprune.methods.registry import fidelity_of
from divprune.methods.vision_inputs import VISION_NEEDS

SCENES_PER_BATCH = 8


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
    """

    case: str
    batch: str
    predictions: tuple[str, ...] = ()
    mean_kept: float = 0.0
    feed: str = ""
    refusal: str | None = None


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
    ) -> None:
        """Prepare.

        Args:
            model: a model that answers about scenes, such as the embedded one.
            processor: its processor.
            num_scenes: how many test images or videos, from the first on.
            log: where answers go, and come from if they are there already; None to keep them in memory only.
            bench: what is asked about.

        Raises:
            EvaluationError: the log is broken.
        """
        self.num_scenes, self.num_units = num_scenes, len(bench.parts) * -(-num_scenes // SCENES_PER_BATCH)
        self._bench = bench
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
            for case in cases:
                if self._entries.get((case.key, name)) is None:
                    self._add(self._entry(case, name, batch, first))
                after_unit()

    def _add(self, entry: SuiteEntry) -> None:
        if self._log is not None:
            self._log.append(asdict(entry))
        self._entries[entry.case, entry.batch] = entry

    def _entry(self, case: Case, name: str, batch: Batch, first: int) -> SuiteEntry:
        earlier = self._entries.get((case.key, self._names(0)[0]))
        if earlier is None:
            return _first_entry(case, name, batch)
        if earlier.refusal is not None:
            return replace(earlier, batch=name)
        return _entry(case, name, batch, first, cast(Feed, earlier.feed))

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
        return row | scores(self.answered(case), self.num_scenes, with_cider, self._bench.kinds)

    def _entries_of(self, case: Case) -> list[SuiteEntry]:
        found = [self._entries.get((case.key, name)) for name in self._questions]
        return [entry for entry in found if entry is not None]


def _parse(line: Any) -> SuiteEntry:
    return SuiteEntry(**line | {"predictions": tuple(line["predictions"])})


def _first_entry(case: Case, name: str, batch: Batch) -> SuiteEntry:
    """Find out whether a case can run, and whether on visual tokens or only on pixels."""
    if case.name == batch.bench.withheld:
        return _entry(case, name, batch, 0, "nothing")
    first: Feed = "tokens" if case.method is None or batch.bench.modality == "image" else "placed"
    try:
        return _entry(case, name, batch, 0, first)
    except (DivpruneError, ValueError, NotImplementedError):
        pass
    try:
        return _entry(case, name, batch, 0, "pixels")
    except (DivpruneError, ValueError, NotImplementedError) as error:
        return SuiteEntry(case.key, name, refusal=" ".join(str(error).split()))


def _entry(case: Case, name: str, batch: Batch, first: int, feed: Feed) -> SuiteEntry:
    if case.name in WITHOUT_PRUNING:
        kept = 0 if feed == "nothing" else len(batch.visual_tokens[0])
        return SuiteEntry(case.key, name, tuple(batch.generate(feed)), float(kept), feed)
    if case.method is None:
        raise ValueError("method must be given where tokens are pruned, got None")
    if feed == "placed" and case.method.needs & VISION_NEEDS:
        raise ValueError(f"feed must be pixels for a method that reads the vision encoder, got {feed!r}")
    method = case.method.for_sample(first)
    with prune(batch.model, method, num_keep=case.num_keep, scope=case.scope, positions=case.positions) as pruning:
        predictions = tuple(batch.generate(feed))
    kept_of_items = [item.num_kept for item in pruning.last.items] if pruning.last else []
    return SuiteEntry(case.key, name, predictions, fmean(kept_of_items), feed)
