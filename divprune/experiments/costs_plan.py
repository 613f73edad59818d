"""What it takes to run cells: questions, operations, hours on a GPU, and what must be at hand."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from divprune.evaluation.cells import UNPRUNED, Cell
from divprune.evaluation.datasets import Medium
from divprune.experiments.costs import PromptCosts
from divprune.experiments.paper.columns import EFFICIENCY, Column
from divprune.experiments.paper.presets import Entry
from divprune.experiments.paper.settings import Setting, recipe_file
from divprune.experiments.subjects import Subject
from divprune.experiments.throughput import SECONDS_PER_HOUR, Throughput

NUM_PICTURES = 1000
"""Over so many the paper's Figures 3 and 5 show the max-min distance."""
EFFICIENCY_CALLS, EFFICIENCY_TOKENS = 6, 60
"""Calls of each method when time is measured, a warm-up included, and the tokens that each generates."""
RECIPE = "FitPrune recipe"


@dataclass(frozen=True, slots=True)
class Work:
    """How often something is asked, and how long its answer is.

    Attributes:
        title: of the data set, or what is done instead.
        medium: what the model is shown.
        num_samples: questions.
        mean_answer_tokens: tokens of an answer.
        needs: what must be at hand.
        num_judge_calls: calls of a judge.
    """

    title: str
    medium: Medium
    num_samples: int
    mean_answer_tokens: int
    needs: tuple[str, ...] = ()
    num_judge_calls: int = 0


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and what it takes.

    Attributes:
        cell: the cell.
        model: the model's title.
        row: label of its row.
        work: the questions.
        prefill_flop: operations until the first token of one answer: encoder, selection, language model.
        decode_flop: operations of the rest of it.
        num_weights: that each token of the answer is multiplied with.
        assumption: what the estimate takes for granted; None for nothing.
    """

    cell: Cell
    model: str
    row: str
    work: Work
    prefill_flop: float
    decode_flop: float
    num_weights: float
    assumption: str | None = None

    @property
    def recipe(self) -> str | None:
        """The file that FitPrune reads; None for other methods."""
        return recipe_file(self.cell.method)

    @property
    def total_flop(self) -> float:
        """Operations of all answers."""
        return self.work.num_samples * (self.prefill_flop + self.decode_flop)

    def gpu_hours(self, throughput: Throughput) -> float:
        """Return the hours on one GPU."""
        decoded = self.work.mean_answer_tokens - 1
        each = throughput.seconds(self.prefill_flop, decoded, self.num_weights, self.work.medium)
        return self.work.num_samples * each / SECONDS_PER_HOUR

    def as_row(self, throughput: Throughput) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        work = asdict(self.work) | {"needs": list(self.work.needs)}
        costs = {"prefill_flop": self.prefill_flop, "decode_flop": self.decode_flop, "total_flop": self.total_flop}
        name = {"name": self.cell.name, "row": self.row, "assumption": self.assumption}
        return name | self.cell.as_config() | work | costs | {"gpu_hours": self.gpu_hours(throughput)}


def plan(listed: Iterable[Entry], limit: int | None = None) -> list[PlannedCell]:
    """Work out what the cells of tables take, each once.

    Args:
        listed: numbers of one or more tables.
        limit: questions of each data set, at most; None for all.
    """
    found: dict[str, PlannedCell] = {}
    for entry in listed:
        if entry.cell is not None and entry.cell.name not in found:
            found[entry.cell.name] = _planned(entry, entry.cell, limit)
    return list(found.values())


def total_hours(planned: Sequence[PlannedCell], throughput: Throughput) -> float:
    """Return the hours of all cells on one GPU."""
    return sum(each.gpu_hours(throughput) for each in planned)


def _planned(entry: Entry, cell: Cell, limit: int | None) -> PlannedCell:
    setting = entry.row.setting or Setting(UNPRUNED)
    work = _work(entry.column, entry.subject, setting, limit)
    workloads = entry.subject.workloads
    usual = workloads.get("videochatgpt", entry.subject.prompts[0])
    costs = PromptCosts(entry.subject, setting, workloads[entry.column.data_set] if entry.column.is_score else usual)
    decode, weights = costs.decode_flop(work.mean_answer_tokens), costs.num_weights()
    return PlannedCell(
        cell, entry.subject.title, entry.row.label, work, costs.prefill_flop(), decode, weights, costs.assumption
    )


def _work(column: Column, subject: Subject, setting: Setting, limit: int | None) -> Work:
    recipe = (RECIPE,) if setting.flop_ratio is not None else ()
    if not column.is_score:
        medium: Medium = "image" if "pope" in subject.workloads else "video"
        if column.data_set == EFFICIENCY:
            return Work("time and memory", medium, EFFICIENCY_CALLS, EFFICIENCY_TOKENS, ("GPU alone", *recipe))
        return Work("pictures", "image", min(NUM_PICTURES, limit or NUM_PICTURES), 1, ("pictures", *recipe))
    source = column.source
    count = min(source.num_samples, limit or source.num_samples)
    needs = (*sorted(source.needs), *recipe)
    judged = count if "judge" in source.needs else 0
    return Work(source.title, source.medium, count, source.mean_answer_tokens, needs, judged)
