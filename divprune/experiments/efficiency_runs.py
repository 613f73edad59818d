"""Measure time and memory of a table's rows, as `divprune bench` does, one record a row."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from divprune.checkpoints import choose_device, load_model
from divprune.config import PruningConfig
from divprune.efficiency import UNPRUNED_VARIANT as WHOLE
from divprune.efficiency import BenchSubject as Measured
from divprune.efficiency import Measurement, Variant, get_architecture, measure_variants, random_inputs
from divprune.embedded.examples import DEFAULT_PROMPT, bundled_scenes
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.experiments.costs import EFFICIENCY_CALLS, EFFICIENCY_TOKENS
from divprune.experiments.paper.columns import EFFICIENCY_COLUMNS
from divprune.experiments.reproduce import ReproduceOptions
from divprune.experiments.subjects import Subject
from divprune.methods import method_title
from divprune.progress import Progress
from divprune.prompting import build_inputs
from divprune.records import Record, provenance

VIDEO_TASK = "videochatgpt"
"""The paper measures on these prompts."""


def measure_efficiency(
    runs: Sequence[EvaluationRun], subject: Subject, options: ReproduceOptions, progress: Progress
) -> None:
    """Measure all rows in one run, in turns, unless each has its record.

    Raises:
        ArgumentError: the model cannot be loaded.
    """
    if not runs or (
        options.harness.resume and all((options.harness.output / f"{run.name}.json").is_file() for run in runs)
    ):
        return
    prompt = subject.workloads.get(VIDEO_TASK, subject.prompts[0])
    load = partial(
        _load,
        subject.model,
        subject.architecture,
        max(2, prompt.num_text_tokens),
        options.harness.device,
        options.harness.dtype,
    )
    origin = provenance()
    loaded, measured, rows = measure_variants(
        load,
        [variant(run) for run in runs],
        progress,
        num_new_tokens=EFFICIENCY_TOKENS,
        repeats=EFFICIENCY_CALLS - 1,
    )
    origin |= {"machine": provenance()["machine"]}
    for run, measurement, numbers in zip(runs, measured, rows, strict=True):
        _record(run, measurement, numbers, loaded, origin).save(options.harness.output)


def variant(run: EvaluationRun) -> Variant:
    """Return a row as `run_bench` takes it.

    Raises:
        DivpruneError: there is no such method.
    """
    if run.method == UNPRUNED:
        return WHOLE
    how: dict[str, Any] = {"keep_ratio": run.keep_ratio, "num_keep": run.num_keep, "positions": run.positions}
    how |= {"scope": run.scope, "newlines": run.newlines}
    config = PruningConfig.parse(run.method, **how)
    return Variant(method_title(run.method), config)


def _load(model: str, architecture: str | None, num_text_tokens: int, device: str, dtype: str) -> Measured:
    """Return the model, with a random prompt if it is one of the paper's, or one about a bundled scene."""
    loaded = load_model(model, choose_device(device), dtype)
    if architecture is not None:
        return Measured(loaded.model, random_inputs(loaded.model, get_architecture(architecture), num_text_tokens))
    example = bundled_scenes((DEFAULT_PROMPT,))[0]
    return Measured(loaded.model, build_inputs(loaded, example.media, example.prompt))


def _record(
    run: EvaluationRun,
    measurement: Measurement,
    numbers: Mapping[str, Any],
    loaded: Measured,
    origin: Mapping[str, Any],
) -> Record:
    num_samples = EFFICIENCY_CALLS - 1
    rows = [
        {"metric": column.metric, "value": numbers[column.metric], "stderr": None, "num_samples": num_samples}
        for column in EFFICIENCY_COLUMNS
    ]
    config = run.as_config() | {
        "metric": "efficiency",
        "num_samples": num_samples,
        "num_prompt_tokens": loaded.inputs["input_ids"].shape[1],
        "num_new_tokens": EFFICIENCY_TOKENS,
        "num_visual_tokens_mean": measurement.num_visual_tokens,
        "num_kept_mean": measurement.num_kept,
        "kv_cache_bytes": measurement.kv_cache_bytes,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.model.device.type,
        **measurement.beside,
    }
    return Record(run.name, config, rows, origin)
