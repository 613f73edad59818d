"""Where `divprune reproduce` writes: checked for every file before anything is run, since runs take hours."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from divprune.cli.calibrate import picture_files
from divprune.cli.failures import CommandError
from divprune.cli.outputs import check_not_read, check_replaceable, is_figure, is_page, is_same_file
from divprune.cli.reproduce import PlannedTable, ReproduceOptions
from divprune.experiments.comparison_text import FIRST_COLUMN
from divprune.figures.reproduced import ENDINGS
from divprune.figures.saving import FORMATS
from divprune.records import check_record_place


def check_places(tables: Sequence[PlannedTable], options: ReproduceOptions) -> None:
    """Refuse a folder in which a table, a figure or a record would replace something else.

    Raises:
        CommandError: a file is in the way, or images lie where figures are drawn.
        RecordError: a file is where a record goes.
    """
    folder = options.output
    if options.images is not None and is_same_file(folder, options.images):
        raise CommandError(
            f"--output {folder} is what --images reads; name another folder, or figures drawn there are read as images"
        )
    for table in tables:
        for each in table.cells:
            check_record_place(folder, each.cell.name)
        is_ours = partial(is_page, words=f"| {FIRST_COLUMN} |")
        check_replaceable("--output", folder / f"{table.file_name}.md", is_ours, "table of `divprune reproduce`")
        if table.preset.name.startswith("figure"):
            check_record_place(folder, table.file_name)
            _check_figures(table, options)


def _check_figures(table: PlannedTable, options: ReproduceOptions) -> None:
    images: Sequence[Path] = () if options.images is None else picture_files(options.images)
    for ending in ENDINGS:
        for kind in FORMATS:
            path = options.output / f"{table.file_name}{ending}.{kind}"
            check_not_read("--output", path, images, "one in another folder")
            check_replaceable("--output", path, is_figure, "figure of `divprune reproduce`")
