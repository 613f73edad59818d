"""Plan a table or figure of the paper: its runs, what they cost, and what stands beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from divprune.config import Newlines, Scope
from divprune.errors import ArgumentError, argument_errors
from divprune.evaluation.datasets import data_set
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.costs import CostedRun, Throughput, plan, throughput_of, usual_throughput
from divprune.experiments.paper.presets import PRESETS, Choice, Entry, Preset, entries, get_preset
from divprune.experiments.paper.settings import unknown_parts
from divprune.experiments.subjects import Subject, paper_subject, subject_of
from divprune.progress import SILENT, Progress

EVERYTHING = "all"


@dataclass(frozen=True)
class ReproduceOptions:
    """What of the paper is reproduced, and how.

    Attributes:
        name: "table1", "table2", "table3", "ablations", "llava-next", "figure1", "figure3", "figure4", "figure5" or
            "all".
        model: another checkpoint than the paper's, or "embedded".
        tasks: data sets by key, instead of the table's.
        methods: only these; the unpruned model and random tokens always run. Others than the table's are added.
        keep_ratios: fractions of the visual tokens kept, instead of the paper's.
        scope: what shares one budget, as for `prune`.
        newlines: what becomes of newline tokens, as for `prune`.
        gpu_tflops: what a GPU does in a prefill, for the estimate; None for a V100's 50.
        gpus: that share the work, for the estimate.
        visual_tokens: of an image, where the model's config does not tell.
        images: a folder for Figures 3 and 5; None for generated scenes.
        harness: how models are loaded and data sets run, where records go, and are found if they are there already.
    """

    name: str
    model: str | None = None
    tasks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    keep_ratios: tuple[float, ...] | None = None
    scope: Scope = "item"
    newlines: Newlines = "budget"
    gpu_tflops: float | None = None
    gpus: int = 1
    visual_tokens: int | None = None
    images: Path | None = None
    harness: HarnessOptions = field(default_factory=partial(HarnessOptions, Path("results/paper")))


@dataclass(frozen=True)
class PlannedTable:
    """A table on one model, and the runs that no table before it has."""

    preset: Preset
    entries: Sequence[Entry]
    runs: Sequence[CostedRun]

    @property
    def title(self) -> str:
        """What it is, on which model."""
        return f"{self.preset.title}, {self.entries[0].subject.title}"

    @property
    def file_name(self) -> str:
        """How the names of its files begin."""
        return f"{self.preset.name}-{self.entries[0].subject.title}"


@dataclass(frozen=True)
class Plan:
    """What would be run, and what it takes.

    Attributes:
        tables: each on one model; a run that stands in several belongs to the first.
        throughput: what a GPU is taken to do.
        gpus: that share the work.
    """

    tables: Sequence[PlannedTable]
    throughput: Throughput
    gpus: int = 1

    @property
    def runs(self) -> list[CostedRun]:
        """Every run, once."""
        return [run for table in self.tables for run in table.runs]

    def as_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        every = self.runs
        hours = sum(run.gpu_hours(self.throughput) for run in every)
        total = {
            "num_runs": len(every),
            "num_samples": sum(run.work.num_samples for run in every),
            "total_flop": sum(run.total_flop for run in every),
            "gpu_hours": hours,
            "wall_hours": hours / self.gpus,
            "num_judge_calls": sum(run.work.num_judge_calls for run in every),
        }
        listed = [
            {
                "name": table.preset.name,
                "model": table.entries[0].subject.title,
                "runs": [run.as_row(self.throughput) for run in table.runs],
                "not_run": _not_run(table.entries),
            }
            for table in self.tables
        ]
        assumed = {"tflops": self.throughput.tflops, "bandwidth_terabytes": self.throughput.bandwidth_terabytes}
        throughput = {"name": self.throughput.name, **assumed}
        return {"tables": listed, "total": total, "throughput": throughput, "gpus": self.gpus}


def plan_paper(options: ReproduceOptions, progress: Progress = SILENT) -> Plan:
    """Plan a table or figure of the paper, or all of them.

    Raises:
        ArgumentError: an argument cannot work.
        DivpruneError: there is no such method, or the model cannot be pruned.
    """
    options.harness.check()
    with argument_errors():
        throughput = usual_throughput() if options.gpu_tflops is None else throughput_of(options.gpu_tflops)
        with progress.working("planning"):
            return Plan(_tables(options), throughput, options.gpus)


def _tables(options: ReproduceOptions) -> list[PlannedTable]:
    presets = PRESETS if options.name == EVERYTHING else (_preset(options.name),)
    if options.tasks is not None and not options.tasks:
        raise ArgumentError("`tasks` is empty; name data sets, or leave it out for the table's")
    keys = None if options.tasks is None else tuple(data_set(task).key for task in options.tasks)
    folder = str(options.harness.output)
    choice = Choice(options.methods, options.keep_ratios, keys, folder, options.scope, options.newlines)
    seen: set[str] = set()
    tables = []
    for preset in presets:
        for subject in _subjects(preset, options):
            listed = entries(preset, subject, choice)
            _require_fitting(listed, subject, options)
            runs = [each for each in plan(listed, options.harness.limit) if each.run.name not in seen]
            seen.update(each.run.name for each in runs)
            tables.append(PlannedTable(preset, listed, runs))
    return tables


def _require_fitting(listed: Sequence[Entry], subject: Subject, options: ReproduceOptions) -> None:
    """Refuse a scope and newlines that the model's family does not have, and methods of which none can be run."""
    unknown = unknown_parts(subject, options.scope, options.newlines)
    if unknown is not None:
        raise ArgumentError(unknown)
    named = [each for each in listed if each.row.method not in (None, UNPRUNED, "random")]
    if options.methods and named and all(each.refusal is not None for each in named):
        raise ArgumentError(f"`methods`: {named[0].refusal}")


def _subjects(preset: Preset, options: ReproduceOptions) -> list[Subject]:
    """Return the models of a table: the paper's, or the one that is given."""
    if options.model is None:
        return [paper_subject(architecture) for architecture in preset.architectures]
    return [subject_of(options.model, options.visual_tokens)]


def _preset(name: str) -> Preset:
    try:
        return get_preset(name)
    except ValueError as error:
        raise ArgumentError(f"`name`: {error}; or {EVERYTHING} for all of them") from None


def _not_run(listed: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"row": entry.row.label, "column": entry.column.key, "reason": entry.refusal, "printed": entry.printed}
        for entry in listed
        if entry.refusal is not None
    ]
