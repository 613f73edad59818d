"""Run a plan of the paper, each kind of run where it belongs, and compare it with the paper's numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divprune.calibration import CalibrationOptions, find_fitprune_recipe
from divprune.checkpoints import EMBEDDED
from divprune.distributed import is_main_process, num_processes
from divprune.embedded.examples import image_files
from divprune.errors import ArgumentError, CalibrationError
from divprune.evaluation.results import Results
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.comparison import Compared, compared
from divprune.experiments.comparison_text import FIRST_COLUMN, markdown
from divprune.experiments.costs import CostedRun
from divprune.experiments.efficiency_runs import measure_efficiency
from divprune.experiments.figure_runs import draw_presets, require_images, sample_images
from divprune.experiments.harness import run_in_harness
from divprune.experiments.misfits import misfit_reasons
from divprune.experiments.paper.columns import EFFICIENCY, IMAGES
from divprune.experiments.paper.presets import NOT_TASKS
from divprune.experiments.paper.settings import recipe_command, recipe_percent
from divprune.experiments.reproduce import Plan, PlannedTable, ReproduceOptions
from divprune.figures.book import ENDINGS
from divprune.figures.saving import FIGURE, FORMATS
from divprune.outputs import FileKind, is_same_file, make_folder, safe_output, write_whole
from divprune.progress import SILENT, Progress
from divprune.records import check_record_place

CALIBRATION_SCENES = 16
_TABLE = FileKind("table of `divprune reproduce`", "one in another folder", re.escape(f"| {FIRST_COLUMN} |").encode())


@dataclass(frozen=True)
class Reproduced:
    """A table beside the paper's numbers.

    Attributes:
        table: as it was planned.
        found: the scores, compared.
        page: the file of the table, in Markdown.
    """

    table: PlannedTable
    found: Compared
    page: Path


@dataclass(frozen=True)
class Reproduction:
    """What came out.

    Attributes:
        output: the folder of records.
        tables: beside the paper's.
        files: of the figures among them.
    """

    output: Path
    tables: Sequence[Reproduced]
    files: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        rows = [result.as_row() for each in self.tables for result in each.found.results]
        return {"output": str(self.output), "rows": rows, "files": list(self.files)}


def run_paper(plan: Plan, options: ReproduceOptions, progress: Progress = SILENT) -> Reproduction | None:
    """Run what has no record yet, compare it with the paper's numbers, and draw the figures.

    Args:
        plan: of these options, by `plan_paper`.
        options: how.
        progress: is told how far it is.

    Returns:
        The tables; None in other processes than the main one.

    Raises:
        ArgumentError: an argument cannot work.
        EvaluationError: something that a run needs is missing, or a scorer failed.
        RecordError: a record that is there is broken, or another file is in its place.
    """
    for table in plan.tables:
        if _of(table.runs, table, IMAGES):
            require_images(options, table.entries[0].subject.model)
    refused = _misfits(plan, options)
    make_folder("output", options.harness.output)
    _check_places(plan.tables, options)
    refused |= _calibrated(plan.runs, options, progress)
    able = [each for each in plan.runs if each.run.name not in refused]
    tasks = [each.run for each in able if each.run.task not in NOT_TASKS]
    if tasks:
        run_in_harness(tasks, options.harness, progress)
    if not is_main_process():
        return None
    for table in plan.tables:
        subject = table.entries[0].subject
        measure_efficiency([each.run for each in _of(able, table, EFFICIENCY)], subject, options, progress)
        sample_images(_of(able, table, IMAGES), table, options, progress)
    results, shown = Results(options.harness.output), []
    with progress.working("comparing"):
        for table in plan.tables:
            found = compared(table.entries, results, refused)
            page = options.harness.output / f"{table.file_name}.md"
            write_whole(page, f"# {table.title}\n\n{markdown(found)}")
            shown.append(Reproduced(table, found, page))
    files = draw_presets([(each.table, each.found) for each in shown], options, progress)
    return Reproduction(options.harness.output, shown, files)


def _misfits(plan: Plan, options: ReproduceOptions) -> dict[str, str]:
    """Say by name which runs do not fit their model; if none but unpruned and random ones does, refuse all of it."""
    if options.harness.backend != "hf":
        return {}
    reasons = misfit_reasons([each.run for each in plan.runs])
    pruned = {each.run for each in plan.runs if each.run.method not in (UNPRUNED, "random")}
    if pruned and pruned <= reasons.keys():
        raise ArgumentError(next(iter(reasons.values())))
    return {run.name: reason for run, reason in reasons.items()}


def _of(able: Sequence[CostedRun], table: PlannedTable, task: str) -> list[CostedRun]:
    own = {each.run.name for each in table.runs}
    return [each for each in able if each.run.task == task and each.run.name in own]


def _check_places(tables: Sequence[PlannedTable], options: ReproduceOptions) -> None:
    """Refuse a folder in which a table, a figure or a record would replace something else, since runs take hours."""
    folder = options.harness.output
    if options.images is not None and is_same_file(folder, options.images):
        raise ArgumentError(
            f"`output` {folder} is what `images` reads; name another folder, or figures drawn there are read as images"
        )
    for table in tables:
        for each in table.runs:
            check_record_place(folder, each.run.name)
        safe_output("output", folder / f"{table.file_name}.md", _TABLE)
        if table.preset.name.startswith("figure"):
            check_record_place(folder, table.file_name)
            _check_figures(table, options)


def _check_figures(table: PlannedTable, options: ReproduceOptions) -> None:
    images: Sequence[Path] = () if options.images is None else image_files(options.images)
    for ending in ENDINGS:
        for kind in FORMATS:
            path = options.harness.output / f"{table.file_name}{ending}.{kind}"
            safe_output("output", path, FIGURE, images)


def _calibrated(planned: Sequence[CostedRun], options: ReproduceOptions, progress: Progress) -> dict[str, str]:
    """Make the recipes that are not there; say by name which runs are impossible for want of one."""
    refused: dict[str, str] = {}
    reasons: dict[str, str | None] = {}
    for each in planned:
        if each.recipe is not None and not Path(each.recipe).is_file():
            if each.recipe not in reasons:
                reasons[each.recipe] = _calibrate(each.run.model, each.recipe, options, progress)
            reason = reasons[each.recipe]
            if reason is not None:
                refused[each.run.name] = reason
    for reason in dict.fromkeys(refused.values()):
        progress.note(f"FitPrune is not run: {reason}")
    return refused


def _calibrate(model: str, recipe: str, options: ReproduceOptions, progress: Progress) -> str | None:
    """Make a recipe; return why that cannot be done, None if it is."""
    if num_processes() > 1:
        return f"it needs a recipe, which a single process makes: {recipe_command(model, recipe)}"
    images = () if options.images is None else (options.images,)
    if not images and model != EMBEDDED:
        return f"it needs a recipe; give a folder of `images`, or make it: {recipe_command(model, recipe)}"
    settings = CalibrationOptions(
        Path(recipe), model, images, (), CALIBRATION_SCENES, options.harness.device, options.harness.dtype
    )
    try:
        find_fitprune_recipe(settings, recipe_percent(recipe), "paper", progress)
    except CalibrationError as error:
        return str(error)
    progress.note(f"FitPrune's recipe is saved: {recipe}")
    return None
