"""Run a scenes suite: its rows answered, scored and recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from divprune.checkpoints import LoadedModel, checkpoint_config, load_model
from divprune.config import Positions, PruningConfig
from divprune.efficiency.shapes import model_shape
from divprune.errors import ArgumentError, MissingDependencyError, argument_errors
from divprune.evaluation.cider import cider_scores
from divprune.evaluation.matching import MATCHINGS, Matching
from divprune.evaluation.resampling import CONFIDENCE, NUM_RESAMPLES
from divprune.evaluation.scenes.bench import BENCHES, IMAGE_BENCH, SceneBench
from divprune.evaluation.scenes.cases import Case, default_methods, numbered, suite_cases
from divprune.evaluation.scenes.fitprune_calibration import NUM_TRAINING_SCENES, recipe_tailor
from divprune.evaluation.scenes.suite import SCENES_PER_BATCH, Suite
from divprune.huggingface.fitting import misfits
from divprune.jsonl_log import JsonlLog
from divprune.methods import FitPrune, get_method
from divprune.outputs import make_folder
from divprune.progress import SILENT, Progress
from divprune.records import Record, check_record_place, provenance


@dataclass(frozen=True)
class SceneOptions:
    """What is compared on generated images or videos.

    Attributes:
        suite: "scenes" for images, "scenes-video" for videos.
        methods: as `get_method` reads them; None for all, or for all that are for videos alone and some others.
        keep_ratios: fractions of the visual tokens kept, in (0, 1]; None for the suite's own.
        matchings: what is made equal between methods: tokens, FLOPs, or one after the other.
        positions: of tokens that are kept before the LLM, as for `prune`.
        num_scenes: how many images or videos are asked about; None for the suite's own number.
        output: the folder that gets the record.
        resume: whether to go on where an earlier run stopped.
        retention: whether to tell as well how likely each row finds the unpruned model's answers, in about twice the
            time; see `divprune.evaluation.retention`.
    """

    suite: str = IMAGE_BENCH.suite
    methods: tuple[str, ...] | None = None
    keep_ratios: tuple[float, ...] | None = None
    matchings: tuple[Matching, ...] = MATCHINGS
    positions: Positions | None = None
    num_scenes: int | None = None
    output: Path = Path("results")
    resume: bool = True
    retention: bool = False

    @property
    def bench(self) -> SceneBench:
        """What is shown and asked.

        Raises:
            ArgumentError: there is no such suite.
        """
        if self.suite not in BENCHES:
            raise ArgumentError(f"`suite` must be one of {', '.join(BENCHES)}, got {self.suite!r}")
        return BENCHES[self.suite]

    @property
    def record_name(self) -> str:
        """The record's name: each numbering has one of its own."""
        name = self.bench.record_name
        return f"{name}-compact" if self.positions == "compact" else name


@dataclass(frozen=True)
class SceneScores:
    """What came out.

    Attributes:
        config: the settings, ready for a record.
        rows: one a method, keep ratio and matching, ready for a record.
        record: the record's file.
    """

    config: dict[str, Any]
    rows: list[dict[str, Any]]
    record: Path


def run_scenes(options: SceneOptions, progress: Progress = SILENT) -> SceneScores:
    """Answer what no earlier run has answered, score it, and write the record.

    Raises:
        ArgumentError: an argument cannot work.
        RecordError: another file is where the record goes.
    """
    bench = options.bench
    _require_fitting(options)
    make_folder("output", options.output)
    check_record_place(options.output, options.record_name)
    origin = provenance()
    with progress.working("loading the embedded model"):
        loaded = load_model(bench.model, torch.device("cpu"), "float32")
    log = JsonlLog(options.output, options.record_name, _identity(origin, options))
    if not options.resume:
        log.delete()
    suite = Suite(loaded.model, loaded.processor, options.num_scenes or bench.num_shown, log, bench, options.retention)
    if suite.num_done:
        progress.note(f"an earlier run was interrupted: {suite.num_done} pieces of it are there and not repeated")
    cases = _cases(options, suite, loaded, progress)
    with_cider = bench.has_captions and _has_cider(progress)
    num_units = suite.num_units * len({case.key for case in cases if not case.refusal})
    with progress.counting(f"toy {'scenes' if bench is IMAGE_BENCH else 'videos'}", num_units) as advance:
        rows = suite.run(cases, lambda: advance(1), with_cider)
    config = _config(options, suite.num_scenes, loaded, with_cider)
    path = Record(options.record_name, config, rows, origin | {"machine": provenance()["machine"]}).save(options.output)
    log.delete()
    return SceneScores(config, rows, path)


def _require_fitting(options: SceneOptions) -> None:
    """Refuse methods of which none fits the embedded model and what it is shown, before anything is loaded."""
    bench = options.bench
    unchecked = {*bench.baselines, *_calibrated(bench)}
    names = options.methods or ()
    with argument_errors():
        named = [get_method(name) for name in names if name not in unchecked]
        configs = [PruningConfig(method, positions=None if method.layers else options.positions) for method in named]
    reasons = misfits(checkpoint_config(bench.model), [(config, {bench.modality}) for config in configs])
    if reasons and None not in reasons and len(reasons) == len(names):
        raise ArgumentError(str(reasons[0]))


def _calibrated(bench: SceneBench) -> tuple[str, ...]:
    """Name the methods that are calibrated on the bench's training split before they run."""
    return (FitPrune.name,) if bench is IMAGE_BENCH else ()


def _cases(options: SceneOptions, suite: Suite, loaded: LoadedModel, progress: Progress) -> list[Case]:
    bench = options.bench
    names = default_methods(bench) if options.methods is None else list(options.methods)
    shape = model_shape(loaded.model.config)
    calibrators = {}
    if bench is IMAGE_BENCH:
        calibrators[FitPrune.name] = recipe_tailor(loaded.model, loaded.processor, suite.workload)
    with argument_errors(), progress.working("planning"):
        cases = suite_cases(names, shape, suite.workload, options.keep_ratios, options.matchings, calibrators, bench)
    return [numbered(case, options.positions) for case in cases]


def _identity(origin: Mapping[str, Any], options: SceneOptions) -> dict[str, Any]:
    """Return what answers depend on besides method, count and scenes, and whether they are judged."""
    told = {"revision": origin["git_revision"], "versions": origin["versions"], "scenes_per_batch": SCENES_PER_BATCH}
    return told | {"retention": options.retention}


def _has_cider(progress: Progress) -> bool:
    try:
        cider_scores(["a red circle"], [["a red circle"]])
    except MissingDependencyError as error:
        progress.note(f"captions get no CIDEr: {error}")
        return False
    return True


def _config(options: SceneOptions, num_scenes: int, loaded: LoadedModel, with_cider: bool) -> dict[str, Any]:
    bench = options.bench
    calibration = {"num_calibration_scenes": NUM_TRAINING_SCENES} if bench is IMAGE_BENCH else {}
    return {
        "notice": bench.notice(),
        "model": loaded.name,
        "split": "test",
        "num_scenes": num_scenes,
        **calibration,
        "positions": options.positions or "original",
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "confidence": CONFIDENCE,
        "num_resamples": NUM_RESAMPLES,
        "flop_accounting": "paper",
        "has_cider": with_cider,
        "has_retention": options.retention,
    }
