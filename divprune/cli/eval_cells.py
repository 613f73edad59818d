"""Which cells `divprune eval` runs: each method at each share, at equal tokens or at equal FLOPs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from divprune.budget import budget
from divprune.cli.eval_choice import DEFAULT_METHODS, EMBEDDED, UNPRUNED, EvalArguments, tasks_of
from divprune.cli.failures import CommandError
from divprune.cli.reproduce_subjects import architecture_of, subject_of
from divprune.errors import DivpruneError
from divprune.evaluation.cells import Cell
from divprune.evaluation.datasets import DATA_SETS, Medium
from divprune.experiments.paper.settings import at_equal_flops
from divprune.experiments.subjects import CHECKPOINTS, KEEP_RATIO, Subject
from divprune.methods import get_method

Matching = Literal["tokens", "flops"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A cell of the table.

    Attributes:
        cell: what is run.
        matching: what is made equal between methods; None where a method says itself how much it keeps.
        asked_ratio: the share at which methods are compared.
        refusal: why it is not run; None if it is.
    """

    cell: Cell
    matching: Matching | None = None
    asked_ratio: float | None = None
    refusal: str | None = None


def asked_cells(typed: EvalArguments) -> list[Asked]:
    """List the cells, task by task, the unpruned one first; a server has one method, and is not asked for others.

    Raises:
        CommandError: an option cannot work.
        UnknownMethodError: there is no such method.
    """
    try:
        planner = _Planner(typed)
        found = [asked for task in tasks_of(typed.suite) for asked in planner.of_task(task)]
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    once: dict[tuple[Cell, str | None], Asked] = {}
    for asked in found:
        once.setdefault((asked.cell, asked.refusal), asked)
    return list(once.values())


def model_of(typed: EvalArguments) -> str:
    """Return the checkpoint that records name; the paper's models have short names."""
    name = typed.model or typed.running.served_model or EMBEDDED
    return CHECKPOINTS.get(name.lower(), name)


def medium_of(task: str) -> Medium:
    """Return what a task shows, as far as the paper tells; others are taken for pictures."""
    return next((each.medium for each in DATA_SETS if task in (each.task, each.todays_task)), "image")


class _Planner:
    def __init__(self, typed: EvalArguments) -> None:
        self.model, self.typed = model_of(typed), typed
        is_video = architecture_of(self.model) == "llava-next-video-7b"
        self.shares: Sequence[float] = typed.keep_ratios or (0.1 if is_video else KEEP_RATIO,)
        self.matchings: Sequence[Matching] = _matchings(typed.equal)
        names = typed.methods or DEFAULT_METHODS
        self.methods = [name for name in dict.fromkeys(names) if name != UNPRUNED]
        self.kinds = {name: get_method(name) for name in self.methods}
        self._subjects: dict[Medium, Subject] = {}

    def of_task(self, task: str) -> Iterator[Asked]:
        if not self.typed.running.is_server or not self.methods:
            yield Asked(Cell(self.model, task))
        for name, method in self.kinds.items():
            if method.count == "schedule":
                yield Asked(Cell(self.model, task, name))
                continue
            if method.count == "adaptive":
                if self.typed.keep_ratios is None or not self.typed.running.is_server:
                    yield Asked(Cell(self.model, task, name))
                if self.typed.keep_ratios is None:
                    continue
            for share in self.shares:
                cell = Cell(self.model, task, name, share)
                for matching in self.matchings:
                    yield self._flops(cell, share) if matching == "flops" else Asked(cell, "tokens", share)

    def _flops(self, cell: Cell, share: float) -> Asked:
        if not self.kinds[cell.method].layers:
            return Asked(cell, "flops", share)
        subject = self._subject(medium_of(cell.task))
        found = at_equal_flops(subject, cell.method, share)
        if found.num_keep is None:
            return Asked(cell, "flops", share, found.refusal)
        total = subject.prompts[0].num_visual_tokens
        if found.num_keep != budget(total, keep_ratio=share):
            cell = replace(cell, keep_ratio=found.num_keep / total)
        return Asked(cell, "flops", share)

    def _subject(self, medium: Medium) -> Subject:
        """The model with its prompts of one medium, all with as many visual tokens."""
        if medium not in self._subjects:
            given = self.typed.visual_tokens
            subject = subject_of(self.model, given)
            keys = {each.key for each in DATA_SETS if each.medium == medium}
            prompts = {key: each for key, each in subject.workloads.items() if key in keys}
            if not prompts:
                raise CommandError(f"--equal flops: {subject.title} takes no {medium}s")
            if given is not None and subject.architecture is not None:
                prompts = {key: replace(each, num_visual_tokens=given) for key, each in prompts.items()}
            if len({each.num_visual_tokens for each in prompts.values()}) > 1:
                raise CommandError(
                    f"--equal flops needs --visual-tokens: how many {subject.title} makes of a picture depends on it"
                )
            self._subjects[medium] = replace(subject, workloads=prompts)
        return self._subjects[medium]


def _matchings(equal: str | None) -> Sequence[Matching]:
    if equal == "both":
        return ("tokens", "flops")
    return ("flops",) if equal == "flops" else ("tokens",)
