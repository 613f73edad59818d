"""Measure time and memory of a table's rows, as `divprune bench` does, one record a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divprune.budget import Budget
from divprune.checkpoints import choose_device, load_model
from divprune.efficiency import (
    UNPRUNED as WHOLE,
)
from divprune.efficiency import (
    Measurement,
    Variant,
    get_architecture,
    in_own_process,
    peak_memory_bytes,
    random_inputs,
    run_bench,
    run_once,
)
from divprune.embedded.examples import DEFAULT_PROMPT, bundled_scenes
from divprune.errors import DivpruneError
from divprune.evaluation.cells import UNPRUNED, Cell
from divprune.experiments.costs_plan import EFFICIENCY_CALLS, EFFICIENCY_TOKENS
from divprune.experiments.paper.columns import EFFICIENCY_COLUMNS
from divprune.experiments.reproduce import ReproduceOptions
from divprune.experiments.subjects import Subject
from divprune.methods import get_method, method_title
from divprune.progress import Progress, quiet_logs
from divprune.prompting import build_inputs
from divprune.records import Record, provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VIDEO_TASK = "videochatgpt"
"""The paper measures on these prompts."""


@dataclass(frozen=True)
class Timed:
    """What is measured; picklable, for the processes that measure memory.

    Attributes:
        model: checkpoint directory or hub name.
        architecture: which of the paper's models it is, whose prompt is random; None for any other, which is shown a
            bundled scene.
        num_text_tokens: of the random prompt.
        cells: the rows.
        device: as for `load_model`.
        dtype: as for `load_model`.
    """

    model: str
    architecture: str | None
    num_text_tokens: int
    cells: tuple[Cell, ...]
    device: str
    dtype: str


def measure_efficiency(cells: Sequence[Cell], subject: Subject, options: ReproduceOptions, progress: Progress) -> None:
    """Measure all rows in one run, in turns, unless each has its record.

    Raises:
        ArgumentError: the model cannot be loaded.
    """
    if options.resume and all((options.output / f"{cell.name}.json").is_file() for cell in cells):
        return
    prompt = subject.workloads.get(VIDEO_TASK, subject.prompts[0])
    words = max(2, prompt.num_text_tokens)
    timed = Timed(subject.model, subject.architecture, words, tuple(cells), options.device, options.dtype)
    origin = provenance()
    peaks = []
    with progress.counting("peak memory", len(cells)) as advance:
        for index in range(len(cells)):
            peaks.append(in_own_process(peak_memory_of, timed, index))
            advance(1)
    with progress.working("loading the model"):
        model, inputs = _load(timed)
    with progress.counting("time", len(cells) * EFFICIENCY_CALLS) as advance:
        measured = run_bench(
            model,
            inputs,
            [variant(cell) for cell in cells],
            num_new_tokens=EFFICIENCY_TOKENS,
            repeats=EFFICIENCY_CALLS - 1,
            after_call=lambda: advance(1),
        )
    origin |= {"machine": provenance()["machine"]}
    for cell, measurement, peak in zip(cells, measured, peaks, strict=True):
        record = _record(cell, measurement, peak, model, inputs)
        Record(cell.name, record["config"], record["rows"], origin).save(options.output)


def variant(cell: Cell) -> Variant:
    """Return a row as `run_bench` takes it.

    Raises:
        DivpruneError: there is no such method.
    """
    if cell.method == UNPRUNED:
        return WHOLE
    method = get_method(cell.method)
    has_budget = cell.keep_ratio is not None or cell.num_keep is not None
    return Variant(method_title(cell.method), method, Budget(cell.keep_ratio, cell.num_keep) if has_budget else None)


def peak_memory_of(timed: Timed, index: int) -> int | None:
    """Return the peak memory of one row in bytes, None if the model refuses it; meant for a process of its own."""
    with quiet_logs():
        model, inputs = _load(timed)
    try:
        return peak_memory_bytes(lambda: run_once(model, inputs, variant(timed.cells[index]), 2), model.device)
    except DivpruneError:
        return None


def _load(timed: Timed) -> "tuple[PreTrainedModel, dict[str, Any]]":
    loaded = load_model(timed.model, choose_device(timed.device), timed.dtype)
    if timed.architecture is not None:
        return loaded.model, random_inputs(loaded.model, get_architecture(timed.architecture), timed.num_text_tokens)
    example = bundled_scenes((DEFAULT_PROMPT,))[0]
    return loaded.model, build_inputs(loaded, example.media, example.prompt)


def _record(
    cell: Cell, measurement: Measurement, peak: int | None, model: "PreTrainedModel", inputs: dict[str, Any]
) -> dict[str, Any]:
    numbers = measurement.as_row() | {"peak_memory_bytes": peak}
    rows = [
        {"metric": column.metric, "value": numbers[column.metric], "stderr": None, "num_samples": EFFICIENCY_CALLS - 1}
        for column in EFFICIENCY_COLUMNS
    ]
    config = cell.as_config() | {
        "metric": "efficiency",
        "num_samples": EFFICIENCY_CALLS - 1,
        "num_prompt_tokens": inputs["input_ids"].shape[1],
        "num_new_tokens": EFFICIENCY_TOKENS,
        "num_visual_tokens_mean": measurement.num_visual_tokens,
        "num_kept_mean": measurement.num_kept,
        "kv_cache_bytes": measurement.kv_cache_bytes,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }
    return {"config": config, "rows": rows}
