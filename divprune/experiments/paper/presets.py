"""The paper's tables and figures as a list of runs, for its models or for any other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from divprune.config import Newlines, Positions, Scope
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.experiments.paper.columns import EFFICIENCY, IMAGES, MEAN, Column, columns
from divprune.experiments.paper.printed import LLAVA_7B, LLAVA_13B, LLAVA_16, LLAVA_VIDEO, TABLE1, TABLE2, TABLE3
from divprune.experiments.paper.rows import (
    Recipe,
    RowMaker,
    TableRow,
    ablated,
    by_layer,
    every_paper_method,
    main_methods,
    published_tiles,
)
from divprune.experiments.paper.settings import Setting, recipe_file
from divprune.experiments.subjects import Subject, shown_as
from divprune.methods import get_method
from divprune.methods.base import require_modality
from divprune.methods.item_context import Modality

FIGURE_RATIOS = (0.05, 0.098, 0.25, 0.5)
"""The paper's figures sweep the cost; it does not print at which keep ratios."""
_FIGURE_KEYS = ("coco2017", "okvqa", "pope", "mmbench", "mean")


@dataclass(frozen=True, slots=True)
class Preset:
    """A table or figure of the paper.

    Attributes:
        name: what the command line calls it.
        title: what it shows.
        architectures: the paper's models in it.
        columns: keys of its columns.
        recipe: makes its rows.
        keep_ratios: the keep ratios that it compares at; none for the model's own.
        printed: the table whose numbers stand beside its runs.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    columns: tuple[str, ...]
    recipe: Recipe
    keep_ratios: tuple[float, ...] = ()
    printed: str = ""


_LAYER_KEYS = tuple(TABLE3[0].values)

PRESETS: tuple[Preset, ...] = (
    Preset(
        "table1",
        "Table 1: accuracy at matched TFLOPs",
        (LLAVA_7B, LLAVA_13B, LLAVA_16),
        tuple(TABLE1[0].values),
        every_paper_method,
    ),
    Preset("table2", "Table 2: videos, accuracy and cost", (LLAVA_VIDEO,), tuple(TABLE2[0].values), main_methods),
    Preset("table3", "Table 3: the layer at which tokens go", (LLAVA_7B,), _LAYER_KEYS, by_layer),
    Preset("ablations", "Ablations: distances, random, min-max, layers", (LLAVA_7B,), _LAYER_KEYS, ablated),
    Preset(
        "llava-next",
        "LLaVA-NeXT at 640, 320 and 160 tokens, as published by methods that prune each tile",
        (LLAVA_16,),
        tuple(TABLE1[0].values),
        published_tiles,
    ),
    Preset(
        "figure1",
        "Figure 1: mean score against TFLOPs, 7B",
        (LLAVA_7B,),
        _FIGURE_KEYS,
        every_paper_method,
        FIGURE_RATIOS,
        "table1",
    ),
    Preset("figure3", "Figure 3: one image's tokens, and their max-min distance", (LLAVA_7B,), (IMAGES,), main_methods),
    Preset(
        "figure4",
        "Figure 4: mean score against TFLOPs, 13B",
        (LLAVA_13B,),
        _FIGURE_KEYS,
        every_paper_method,
        FIGURE_RATIOS,
        "table1",
    ),
    Preset(
        "figure5",
        "Figure 5: more images' tokens, and their max-min distance",
        (LLAVA_7B,),
        (IMAGES,),
        every_paper_method,
        printed="table1",
    ),
)
PRESET_NAMES = tuple(each.name for each in PRESETS)


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a table.

    Attributes:
        preset: name of the table.
        subject: the model.
        row: its row.
        column: its column.
        run: what is run for it; None for a mean, and where nothing is run.
        refusal: why nothing is run; None if it is, and for a mean.
        printed: the paper's number; None if it has none.
    """

    preset: str
    subject: Subject
    row: TableRow
    column: Column
    run: EvaluationRun | None
    refusal: str | None
    printed: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a table is wanted.

    Attributes:
        methods: only these, the unpruned and the random row always; others than the table's are added. None for the
            table's own.
        keep_ratios: at these keep ratios; None for the table's own.
        data_sets: keys of data sets, instead of the table's; None for the table's own.
        recipe_folder: where FitPrune's recipes lie.
        scope: what shares one budget in every pruned row that does not say itself, as for `prune`.
        newlines: what becomes of newline tokens there, as for `prune`.
    """

    methods: Sequence[str] | None = None
    keep_ratios: Sequence[float] | None = None
    data_sets: Sequence[str] | None = None
    recipe_folder: str = "results"
    scope: Scope = "item"
    newlines: Newlines = "budget"

    def shared(self, row: TableRow) -> TableRow:
        """Return a row with this scope and newlines; the paper's numbers are of others, and do not stand beside."""
        setting = row.setting
        if setting is None or setting.method == UNPRUNED or setting.shares_its_own_way:
            return row
        changed = replace(setting, scope=self.scope, newlines=self.newlines)
        return row if changed == setting else replace(row, setting=changed, printed=None)


def get_preset(name: str) -> Preset:
    """Return a table or figure by name.

    Raises:
        ValueError: there is none.
    """
    from difflib import get_close_matches

    for preset in PRESETS:
        if preset.name == name:
            return preset
    close = get_close_matches(name, PRESET_NAMES, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"preset must be one of {', '.join(PRESET_NAMES)}, got {name!r}{guess}")


def entries(preset: Preset, subject: Subject, choice: Choice | None = None) -> list[Entry]:
    """List every number of a table on one model, row by row.

    Args:
        preset: the table.
        subject: the model.
        choice: what of it is wanted; None for all.

    Raises:
        UnknownMethodError: a method that does not exist is wanted.
        ValueError: a data set or parameter that does not exist is wanted, or a keep ratio out of (0, 1].
    """
    wanted = choice or Choice()
    chosen = _columns(preset, wanted)
    media = {column.source.medium for column in chosen if column.is_score}
    subject = subject.showing(media or {"image"})
    return [_entry(preset, subject, row, column) for row in _rows(preset, subject, wanted) for column in chosen]


def runs(listed: Sequence[Entry]) -> list[EvaluationRun]:
    """Return what is run, once each."""
    found: Mapping[str, EvaluationRun] = {entry.run.name: entry.run for entry in listed if entry.run is not None}
    return list(found.values())


def _columns(preset: Preset, choice: Choice) -> tuple[Column, ...]:
    own = columns(preset.columns)
    if choice.data_sets is None:
        return own
    others = [column for column in own if not column.is_score]
    wanted = set(choice.data_sets)
    kept = [column for column in own if column.data_set in wanted]
    added = [key for key in choice.data_sets if key not in {column.data_set for column in kept}]
    return (*kept, *columns(added), *others)


def _rows(preset: Preset, subject: Subject, choice: Choice) -> Iterator[TableRow]:
    shares = tuple(choice.keep_ratios or preset.keep_ratios) or (subject.keep_ratio,)
    seen: set[tuple[object, ...]] = set()
    for share in shares:
        make = RowMaker(preset.printed or preset.name, subject, share, choice.recipe_folder)
        for row in map(choice.shared, _of(make, preset.recipe, choice.methods)):
            identity = (row.label, row.setting, row.matching)
            if identity not in seen:
                seen.add(identity)
                is_one_of_many = len(shares) > 1 and row.keep_ratio is not None
                yield replace(row, label=f"{row.label}, {row.keep_ratio:g}") if is_one_of_many else row


def _of(make: RowMaker, recipe: Recipe, methods: Sequence[str] | None) -> Iterator[TableRow]:
    rows = list(recipe(make))
    if methods is None:
        yield from rows
        return
    always = {UNPRUNED, "random"}
    wanted = set(methods) | always
    yield from (row for row in rows if row.setting and ({row.method, row.setting.method} & wanted))
    known = {name for row in rows if row.setting for name in (row.method, row.setting.method)}
    for method in methods:
        if method not in known | always:
            yield from make.named(method)


def _entry(preset: Preset, subject: Subject, row: TableRow, column: Column) -> Entry:
    printed = None if row.printed is None else row.printed.values.get(column.key)
    refusal = row.refusal
    if refusal is None and column.is_score and column.data_set not in subject.workloads:
        refusal = f"{subject.title} takes no {column.source.medium}s"
    setting = row.setting
    if refusal is None and column.is_score and setting is not None:
        refusal = _unfit_for(setting, column.source.medium, subject)
    if refusal is not None or setting is None or column.data_set == MEAN:
        return Entry(preset.name, subject, row, column, None, refusal, printed)
    task = column.source.task if column.is_score else column.data_set
    positions = _positions(subject, setting)
    run = EvaluationRun(
        subject.model,
        task,
        setting.method,
        setting.keep_ratio,
        setting.num_keep,
        positions,
        scope=setting.scope,
        newlines=setting.newlines,
    )
    return Entry(preset.name, subject, row, column, run, None, printed)


def _unfit_for(setting: Setting, medium: Modality, subject: Subject) -> str | None:
    """Say why a method cannot work on a medium as a model is shown it; None if it can."""
    if setting.method == UNPRUNED or recipe_file(setting.method) is not None:
        return None
    try:
        shown = medium if subject.model_type is None else shown_as(medium, subject.model_type)
        require_modality(get_method(setting.method), shown)
    except ValueError as error:
        return str(error)
    return None


def _positions(subject: Subject, setting: Setting) -> Positions | None:
    """Return "compact", as in the paper's code, for methods that act before the LLM."""
    if not subject.renumbers or setting.method == UNPRUNED or recipe_file(setting.method) is not None:
        return None
    return None if get_method(setting.method).layers else "compact"


NOT_TASKS = frozenset({EFFICIENCY, IMAGES})
"""Runs of these are no tasks of lmms-eval: time and memory, and what is kept of a folder of images."""
