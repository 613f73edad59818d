"""What `divprune reproduce` does: plan a table of the paper, run its cells, and show them beside the printed ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from divprune.cli.failures import CommandError
from divprune.cli.harness_arguments import Running
from divprune.cli.harness_run import run_in_harness
from divprune.cli.reproduce_subjects import subjects
from divprune.cli.reproduce_tables import assumptions, preparations, refusals, rows_table, totals, works_table
from divprune.cli.screen import Screen
from divprune.errors import DivpruneError
from divprune.evaluation.cells import Cell
from divprune.evaluation.datasets import data_set
from divprune.experiments.costs_plan import PlannedCell, plan
from divprune.experiments.paper.presets import PRESETS, Choice, Entry, Preset, entries, get_preset
from divprune.experiments.throughput import Throughput, throughput_of, usual_throughput

ALL = "all"


@dataclass(frozen=True)
class ReproduceOptions:
    """The arguments of `divprune reproduce`, as typed."""

    name: str
    dry_run: bool
    model: str | None
    tasks: tuple[str, ...] | None
    methods: tuple[str, ...] | None
    keep_ratios: tuple[float, ...] | None
    limit: int | None
    output: Path
    gpu_tflops: float | None
    gpus: int
    visual_tokens: int | None
    images: Path | None
    device: str
    dtype: str
    running: Running
    resume: bool
    debug: bool


@dataclass(frozen=True)
class PlannedTable:
    """A table on one model, and the cells that no table before it has."""

    preset: Preset
    entries: Sequence[Entry]
    cells: Sequence[PlannedCell]

    @property
    def title(self) -> str:
        """What it is, on which model."""
        return f"{self.preset.title}, {self.entries[0].subject.title}"

    @property
    def file_name(self) -> str:
        """How the names of its files begin."""
        return f"{self.preset.name}-{self.entries[0].subject.title}"


def reproduce(options: ReproduceOptions, screen: Screen) -> None:
    """Show the plan, or run it and show the results beside the paper's.

    Raises:
        CommandError: an option cannot work.
    """
    options.running.check()
    if options.running.backend == "vllm" and options.device != "auto":
        raise CommandError("--device is for --backend hf, not for vllm")
    try:
        throughput = usual_throughput() if options.gpu_tflops is None else throughput_of(options.gpu_tflops)
        with screen.working("planning"):
            tables = planned_tables(options)
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    if options.dry_run:
        show_plan(tables, throughput, options, screen)
        return
    from divprune.cli.reproduce_run import run_and_compare

    run_and_compare(tables, options, screen)


def run_plan(cells: Sequence[Cell], options: ReproduceOptions, screen: Screen) -> None:
    """Have cells answered and scored; each leaves its record in the output folder, and is not run again if it is there.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a cell needs is missing, or a scorer failed.
    """
    running = replace(options.running, dtype=options.dtype)
    if (running.backend or "hf") == "hf":
        running = replace(running, device=options.device)
    run_in_harness(
        cells,
        running,
        screen,
        output=options.output,
        limit=options.limit,
        resume=options.resume,
        debug=options.debug,
    )


def planned_tables(options: ReproduceOptions) -> list[PlannedTable]:
    """Plan what is asked for; a cell that stands in several tables belongs to the first.

    Raises:
        ValueError: there is no such table, data set, parameter or share.
        UnknownMethodError: there is no such method.
    """
    presets = PRESETS if options.name == ALL else (_preset(options.name),)
    keys = None if options.tasks is None else tuple(data_set(task).key for task in options.tasks)
    choice = Choice(options.methods, options.keep_ratios, keys, str(options.output))
    seen: set[str] = set()
    tables = []
    for preset in presets:
        for subject in subjects(preset, options.model, options.visual_tokens):
            listed = entries(preset, subject, choice)
            cells = [each for each in plan(listed, options.limit) if each.cell.name not in seen]
            seen.update(each.cell.name for each in cells)
            tables.append(PlannedTable(preset, listed, cells))
    return tables


def _preset(name: str) -> Preset:
    try:
        return get_preset(name)
    except ValueError as error:
        raise CommandError(f"NAME: {error}; or {ALL} for all of them") from None


def show_plan(
    tables: Sequence[PlannedTable], throughput: Throughput, options: ReproduceOptions, screen: Screen
) -> None:
    """Print what would be run and what it takes."""
    every = [cell for table in tables for cell in table.cells]
    for table in tables:
        screen.show(table.title)
        screen.show(rows_table(table.entries, table.cells, throughput))
        for line in refusals(table.entries):
            screen.show(line)
        screen.show()
    screen.show("By data set:")
    screen.show(works_table(every, throughput))
    for line in preparations(every):
        screen.line(line)
    for line in (*assumptions(every), *totals(every, throughput, options.gpus)):
        screen.show(line)
    screen.result(_as_json(tables, throughput, options))


def _as_json(tables: Sequence[PlannedTable], throughput: Throughput, options: ReproduceOptions) -> dict[str, Any]:
    every = [cell for table in tables for cell in table.cells]
    hours = sum(cell.gpu_hours(throughput) for cell in every)
    total = {
        "num_cells": len(every),
        "num_samples": sum(cell.work.num_samples for cell in every),
        "total_flop": sum(cell.total_flop for cell in every),
        "gpu_hours": hours,
        "wall_hours": hours / options.gpus,
        "num_judge_calls": sum(cell.work.num_judge_calls for cell in every),
    }
    listed = [
        {
            "name": table.preset.name,
            "model": table.entries[0].subject.title,
            "cells": [cell.as_row(throughput) for cell in table.cells],
            "not_run": _not_run(table.entries),
        }
        for table in tables
    ]
    assumed = {"tflops": throughput.tflops, "bandwidth_terabytes": throughput.bandwidth_terabytes}
    return {"tables": listed, "total": total, "throughput": {"name": throughput.name, **assumed}, "gpus": options.gpus}


def _not_run(listed: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"row": entry.row.label, "column": entry.column.key, "reason": entry.refusal, "printed": entry.printed}
        for entry in listed
        if entry.refusal is not None
    ]
