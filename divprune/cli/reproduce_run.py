"""Runs the cells of a planned table, each kind where it belongs, and shows them beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from divprune.cli.calibrate import CalibrateOptions, calibrate_recipe
from divprune.cli.failures import CommandError
from divprune.cli.reproduce import PlannedTable, ReproduceOptions, run_plan
from divprune.cli.reproduce_efficiency import measure_efficiency
from divprune.cli.reproduce_figures import draw_presets, require_pictures, sample_pictures
from divprune.cli.reproduce_places import check_places
from divprune.cli.reproduce_subjects import EMBEDDED
from divprune.cli.screen import Screen
from divprune.distributed import is_main_process, num_processes
from divprune.errors import CalibrationError
from divprune.evaluation.results import Results
from divprune.experiments.comparison import Compared, compared
from divprune.experiments.comparison_text import LEGEND, markdown, reasons, sections, shortfalls
from divprune.experiments.costs_plan import PlannedCell
from divprune.experiments.paper.columns import EFFICIENCY, PICTURES
from divprune.experiments.paper.presets import NOT_TASKS
from divprune.experiments.paper.settings import recipe_command, recipe_percent
from divprune.records import write_whole

CALIBRATION_SCENES = 16


def run_and_compare(tables: Sequence[PlannedTable], options: ReproduceOptions, screen: Screen) -> None:
    """Run what has no record yet, then show the comparison and draw the figures.

    Raises:
        CommandError: an option cannot work.
        EvaluationError: something that a cell needs is missing, or a scorer failed.
        RecordError: a record that is there is broken, or another file is in its place.
    """
    for table in tables:
        if _of(table.cells, table, PICTURES):
            require_pictures(options, table.entries[0].subject.model)
    check_places(tables, options)
    _make_folder(options.output)
    planned = [cell for table in tables for cell in table.cells]
    refused = _calibrated(planned, options, screen)
    able = [each for each in planned if each.cell.name not in refused]
    tasks = [each.cell for each in able if each.cell.task not in NOT_TASKS]
    if tasks:
        run_plan(tasks, options, screen)
    if not is_main_process():
        return
    for table in tables:
        subject = table.entries[0].subject
        measure_efficiency([each.cell for each in _of(able, table, EFFICIENCY)], subject, options, screen)
        sample_pictures(_of(able, table, PICTURES), table, options, screen)
    results, shown = Results(options.output), []
    for table in tables:
        with screen.working("comparing"):
            found = compared(table.entries, results, refused)
        _show(table, found, options, screen)
        shown.append((table, found))
    files = draw_presets(shown, options, screen)
    rows = [result.as_row() for _, found in shown for result in found.results]
    screen.result({"output": str(options.output), "rows": rows, "files": files})


def _of(able: Sequence[PlannedCell], table: PlannedTable, task: str) -> list[PlannedCell]:
    own = {each.cell.name for each in table.cells}
    return [each for each in able if each.cell.task == task and each.cell.name in own]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--output {folder}: no such folder can be made ({error.strerror})") from None


class _Part(Screen):
    """What a command inside this one shows; its result is not the last word."""

    def result(self, value: Mapping[str, Any]) -> None:
        """Print nothing."""


def _calibrated(planned: Sequence[PlannedCell], options: ReproduceOptions, screen: Screen) -> dict[str, str]:
    """Make the recipes that are not there; say by name which cells cannot run for want of one."""
    refused, asked = {}, {}
    for each in planned:
        if each.recipe is not None and not Path(each.recipe).is_file():
            if each.recipe not in asked:
                asked[each.recipe] = _calibrate(each.cell.model, each.recipe, options, screen)
            if asked[each.recipe] is not None:
                refused[each.cell.name] = str(asked[each.recipe])
    for reason in dict.fromkeys(refused.values()):
        screen.note(f"FitPrune is not run: {reason}")
    return refused


def _calibrate(model: str, recipe: str, options: ReproduceOptions, screen: Screen) -> str | None:
    """Make a recipe; return why that cannot be done, None if it is."""
    if num_processes() > 1:
        return f"it needs a recipe, which a single process makes: {recipe_command(model, recipe)}"
    images = () if options.images is None else (options.images,)
    if not images and model != EMBEDDED:
        return f"it needs a recipe; give --images FOLDER, or make it: {recipe_command(model, recipe)}"
    settings = CalibrateOptions(model, images, (), CALIBRATION_SCENES, Path(recipe), options.device, options.dtype)
    try:
        calibrate_recipe(settings, recipe_percent(recipe), "paper", _Part(as_json=True))
    except CalibrationError as error:
        return str(error)
    return None


def _show(table: PlannedTable, found: Compared, options: ReproduceOptions, screen: Screen) -> None:
    screen.show(table.title)
    screen.show(_table(found))
    for line in (*shortfalls(found), *reasons(found), LEGEND):
        screen.show(line)
    path = options.output / f"{table.file_name}.md"
    write_whole(path, f"# {table.title}\n\n{markdown(found)}")
    screen.show(f"Table: {path}")


def _table(found: Compared) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column("row", style="bold", overflow="fold")
    for column in ("ours, 95 %", "paper", "diff.", "unpruned, 95 %", "p", "kept"):
        shown.add_column(column, justify="right", overflow="fold")
    for title, lines in sections(found, is_short=True):
        shown.add_row(Text(title, style="bold underline"))
        for line in lines:
            shown.add_row(*map(Text, line))
        shown.add_section()
    return shown
