"""Measure time and memory of a table's rows, as `divprune bench` does, one record a row."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from divprune.budget import Budget
from divprune.checkpoints import choose_device, load_model
from divprune.efficiency import UNPRUNED_VARIANT as WHOLE
from divprune.efficiency import BenchSubject as Measured
from divprune.efficiency import Measurement, Variant, get_architecture, measure_variants, random_inputs
from divprune.embedded.examples import DEFAULT_PROMPT, bundled_scenes
from divprune.evaluation.cells import UNPRUNED, EvaluationRun
from divprune.experiments.costs import EFFICIENCY_CALLS, EFFICIENCY_TOKENS
from divprune.experiments.paper.columns import EFFICIENCY_COLUMNS
from divprune.experiments.reproduce import ReproduceOptions
from divprune.experiments.subjects import Subject
from divprune.methods import get_method, method_title
from divprune.progress import Progress
from divprune.prompting import build_inputs
from divprune.records import Record, provenance

VIDEO_TASK = "videochatgpt"
"""The paper measures on these prompts."""


def measure_efficiency(
    cells: Sequence[EvaluationRun], subject: Subject, options: ReproduceOptions, progress: Progress
) -> None:
    """Measure all rows in one run, in turns, unless each has its record.

    Raises:
        ArgumentError: the model cannot be loaded.
    """
    if not cells or (
        options.harness.resume and all((options.harness.output / f"{cell.name}.json").is_file() for cell in cells)
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
        [variant(cell) for cell in cells],
        progress,
        num_new_tokens=EFFICIENCY_TOKENS,
        repeats=EFFICIENCY_CALLS - 1,
    )
    origin |= {"machine": provenance()["machine"]}
    for cell, measurement, numbers in zip(cells, measured, rows, strict=True):
        _record(cell, measurement, numbers, loaded, origin).save(options.harness.output)


def variant(cell: EvaluationRun) -> Variant:
    """Return a row as `run_bench` takes it.

    Raises:
        DivpruneError: there is no such method.
    """
    if cell.method == UNPRUNED:
        return WHOLE
    method = get_method(cell.method)
    has_budget = cell.keep_ratio is not None or cell.num_keep is not None
    return Variant(method_title(cell.method), method, Budget(cell.keep_ratio, cell.num_keep) if has_budget else None)


def _load(model: str, architecture: str | None, num_text_tokens: int, device: str, dtype: str) -> Measured:
    """Return the model, with a random prompt if it is one of the paper's, or one about a bundled scene."""
    loaded = load_model(model, choose_device(device), dtype)
    if architecture is not None:
        return Measured(loaded.model, random_inputs(loaded.model, get_architecture(architecture), num_text_tokens))
    example = bundled_scenes((DEFAULT_PROMPT,))[0]
    return Measured(loaded.model, build_inputs(loaded, example.media, example.prompt))


def _record(
    cell: EvaluationRun,
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
    config = cell.as_config() | {
        "metric": "efficiency",
        "num_samples": num_samples,
        "num_prompt_tokens": loaded.inputs["input_ids"].shape[1],
        "num_new_tokens": EFFICIENCY_TOKENS,
        "num_visual_tokens_mean": measurement.num_visual_tokens,
        "num_kept_mean": measurement.num_kept,
        "kv_cache_bytes": measurement.kv_cache_bytes,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.model.device.type,
    }
    return Record(cell.name, config, rows, origin)
