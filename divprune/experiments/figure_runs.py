"""Make the paper's figures: 3 and 5 from images, 1 and 4 from scores; their records, and the drawings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divprune.checkpoints import EMBEDDED, LoadedModel, choose_device, load_model
from divprune.embedded.examples import DEFAULT_PROMPT, image_files
from divprune.errors import ArgumentError, MissingDependencyError
from divprune.evaluation.results import Results
from divprune.experiments.comparison import Compared
from divprune.experiments.costs import CostedRun
from divprune.experiments.paper.columns import IMAGES_COLUMN, MEAN
from divprune.experiments.reproduce import PlannedTable, ReproduceOptions
from divprune.figures.book import reproduced
from divprune.media import Medium, load_image
from divprune.methods import method_title
from divprune.outputs import write_whole
from divprune.progress import Progress
from divprune.prompting import build_inputs
from divprune.records import Record, checksum, load_record, provenance

if TYPE_CHECKING:
    from divprune.experiments.token_samples import MethodSamples, Shown
from statistics import fmean

from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.comparison import Result
from divprune.experiments.paper.settings import Setting, flop_ratio
from divprune.experiments.subjects import Subject

SCENE_QUESTION = "How many objects are there?"
LARGEST_SIDE = 336
GREY = (138, 138, 138)


def sample_images(
    planned: Sequence[CostedRun], table: PlannedTable, options: ReproduceOptions, progress: Progress
) -> None:
    """Ask about images with every method of a table, unless its records are there.

    Raises:
        ArgumentError: there are no images, or the model cannot be loaded.
    """
    if not planned:
        return
    from divprune.experiments.token_samples import MethodSamples, token_rows

    subject, origin = table.entries[0].subject, provenance()
    images = _images(options, subject.model, planned[0].work.num_samples)
    for image in images:
        image.tell(progress)
    if _is_done(planned, table, options, len(images)):
        return
    with progress.working("loading the model"):
        loaded = load_model(subject.model, choose_device(options.harness.device), options.harness.dtype)
    runs = [each.run for each in planned]
    names = [method_title(run.method) + (f" {run.budget_title}" if run.num_keep else "") for run in runs]
    methods = [
        MethodSamples(name, run.method, run.keep_ratio, run.num_keep, run.positions, run.scope, run.newlines)
        for name, run in zip(names, runs, strict=True)
    ]
    with progress.counting("images", len(images)) as advance:
        rows = token_rows(loaded.model, _shown(loaded, images, options), methods, lambda: advance(1))
    samples = [row for row in rows if row["case"] == "sample"]
    config = {
        "model": subject.title,
        "keep_ratio": next((run.keep_ratio for run in runs if run.keep_ratio), subject.keep_ratio),
        _counted(options): len(images),
        "pictures": _checksum(options, len(images)),
        "num_visual_tokens": len(samples[0]["token_colors"]),
        "warm_up": 1,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.model.device.type,
    }
    origin |= {"machine": provenance()["machine"]}
    Record(table.file_name, config, rows, origin).save(options.harness.output)
    for run, method in zip(runs, methods, strict=True):
        _save_run(run, method, config, origin, options.harness.output)


def _is_done(planned: Sequence[CostedRun], table: PlannedTable, options: ReproduceOptions, count: int) -> bool:
    """Tell whether the records are there, of the same images."""
    path = options.harness.output / f"{table.file_name}.json"
    if (
        not options.harness.resume
        or not path.is_file()
        or not all((options.harness.output / f"{each.run.name}.json").is_file() for each in planned)
    ):
        return False
    config = load_record(path).config
    return config.get(_counted(options)) == count and config.get("pictures") == _checksum(options, count)


def _checksum(options: ReproduceOptions, count: int) -> str | None:
    """Return what tells the user's images from others; None for generated scenes."""
    return None if options.images is None else checksum(image_files(options.images)[:count])


def _counted(options: ReproduceOptions) -> str:
    return "num_scenes" if options.images is None else "num_pictures"


def _save_run(run: Any, method: "MethodSamples", config: dict[str, Any], origin: dict[str, Any], folder: Path) -> None:
    from statistics import fmean, median

    metric = IMAGES_COLUMN.metric
    value = median(method.max_min_distances) if method.max_min_distances else None
    count = len(method.max_min_distances)
    refusal = method.refusal or (None if count else "fewer than two tokens are kept, or all of them")
    own = {"metric": metric, "num_samples": count, "refusal": refusal}
    own["num_kept_mean"] = fmean(method.num_kept) if method.num_kept else None
    row = {"metric": metric, "value": value, "stderr": None, "num_samples": count}
    Record(run.name, run.as_config() | config | own | {"model": run.model_title}, [row], origin).save(folder)


def require_images(options: ReproduceOptions, model: str) -> None:
    """Find out early whether there are images for a model.

    Raises:
        ArgumentError: there are none.
    """
    if options.images is None and model != EMBEDDED:
        raise ArgumentError("`images` FOLDER is needed: generated scenes are for the embedded model only")
    if options.images is not None and not options.images.exists():
        raise ArgumentError(f"`images` {options.images} is not there")


def _images(options: ReproduceOptions, model: str, count: int) -> list[Medium]:
    require_images(options, model)
    if options.images is not None:
        return [load_image(path) for path in image_files(options.images)[:count]]
    from divprune.embedded import scene

    return [Medium(f"scene {seed}", "image", (scene(seed, "test").image,)) for seed in range(count)]


def _shown(loaded: LoadedModel, images: Sequence[Medium], options: ReproduceOptions) -> "Iterator[Shown]":
    from divprune.experiments.token_samples import Shown, all_tokens

    question = SCENE_QUESTION if options.images is None else DEFAULT_PROMPT
    for medium in images:
        image = medium.frames[0]
        inputs = build_inputs(loaded, (medium,), question)
        item = all_tokens(loaded.model, inputs)
        boxes = item.boxes(image.size, loaded.processor)
        small = image.copy()
        small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        yield Shown(small, inputs, item.kept_tokens, colors=[_color(image, box) for box in boxes])


def _color(image: Any, box: Any) -> tuple[int, int, int]:
    """Return the average colour of a token's place; grey where it has none."""
    if box is None:
        return GREY
    left, top, right, bottom = (round(value) for value in (box.left, box.top, box.right, box.bottom))
    patch = image.crop((left, top, max(right, left + 1), max(bottom, top + 1))).resize((1, 1), resample=4)
    red, green, blue = patch.getpixel((0, 0))[:3]
    return int(red), int(green), int(blue)


def draw_presets(
    shown: Sequence[tuple[PlannedTable, Compared]], options: ReproduceOptions, progress: Progress
) -> list[str]:
    """Draw the figures among the tables; return their files."""
    files = []
    for table, found in shown:
        if not table.preset.name.startswith("figure"):
            continue
        if any(column == MEAN for column in table.preset.columns):
            _save_scores(table, found, options)
        path = options.harness.output / f"{table.file_name}.json"
        if not path.is_file():
            continue
        try:
            contents = reproduced(load_record(path))
        except MissingDependencyError as error:
            progress.note(str(error))
            continue
        for file, content in contents.items():
            write_whole(options.harness.output / file, content)
        files += [str(options.harness.output / file) for file in contents]
    return files


def _save_scores(table: PlannedTable, found: Compared, options: ReproduceOptions) -> None:
    titles = [result.entry.column.title for result in found.results if result.entry.column.is_score]
    config = {
        "model": table.entries[0].subject.title,
        "columns": list(dict.fromkeys(titles)),
        "limit": options.harness.limit,
    }
    rows = figure_rows(found, Results(options.harness.output))
    Record(table.file_name, config, rows).save(options.harness.output)


def figure_rows(compared: Compared, results: Results) -> list[dict[str, Any]]:
    """Return one row a method and share: our mean and cost, and the paper's; None where there is none.

    Args:
        compared: a table with a mean, on one model.
        results: what it was read from.
    """
    rows: dict[str, list[Result]] = {}
    for result in compared.results:
        rows.setdefault(result.entry.row.label, []).append(result)
    return [_row(label, found, results) for label, found in rows.items()]


def _row(label: str, found: Sequence[Result], results: Results) -> dict[str, Any]:
    mean = next(result for result in found if result.entry.column.data_set == MEAN)
    scores = [result for result in found if result.entry.column.is_score]
    row, subject = mean.entry.row, mean.entry.subject
    low, high = _around(mean.value, scores)
    printed = [
        result.entry.column.percent * result.entry.printed for result in scores if result.entry.printed is not None
    ]
    return {
        "label": label,
        "fidelity": row.fidelity,
        "series": UNPRUNED if row.method == UNPRUNED else _series(label, row.method, row.matching),
        "flop_percent": _cost(subject, row.setting, scores, results),
        "mean": mean.value,
        "mean_low": low,
        "mean_high": high,
        "printed_percent": None if row.printed is None else row.printed.flop_percent,
        "printed_mean": fmean(printed) if len(printed) == len(scores) else None,
        "missing": mean.missing,
    }


def _series(label: str, method: str | None, matching: str | None) -> str:
    """One name for all fractions of a method; FastV has two, as it keeps as many tokens or costs as much."""
    base = method or label.partition(",")[0]
    return f"{base} at equal tokens" if base == "fastv" and matching == "tokens" else base


def _around(mean: float | None, scores: Sequence[Result]) -> tuple[float | None, float | None]:
    """Return the interval of a mean of independent scores."""
    halves = [
        result.entry.column.percent * (result.interval.high - result.interval.low) / 2
        for result in scores
        if result.interval is not None
    ]
    if mean is None or len(halves) < len(scores):
        return None, None
    half = sum(each**2 for each in halves) ** 0.5 / len(halves)
    return mean - half, mean + half


def _cost(subject: Subject, setting: Setting | None, scores: Sequence[Result], results: Results) -> float | None:
    """Cost in percent of the unpruned prefill; for methods that find their own number, as many as they kept."""
    if setting is None or setting.refusal is not None:
        return None
    if setting.method == UNPRUNED:
        return 100.0
    if setting.flop_ratio is not None:
        return 100 * setting.flop_ratio
    if setting.method in ("prumerge", "divprune-star"):
        records = [results.record(result.entry.run) for result in scores if result.entry.run is not None]
        counts = [record.config.get("num_kept_mean") for record in records if record is not None]
        kept = [float(count) for count in counts if count is not None]
        if not kept or len(kept) < len(counts):
            return None
        return 100 * flop_ratio(subject, Setting("random", num_keep=max(1, round(fmean(kept)))))
    return 100 * flop_ratio(subject, setting)
