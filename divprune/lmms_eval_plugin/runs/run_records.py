"""From lmms-eval's results to the record of a run, and the sample scores of its documents beside it."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms

from divprune.checkpoints import choose_device
from divprune.errors import EvaluationError
from divprune.evaluation.datasets import DATA_SETS, DataSet
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.runs import EvaluationRun
from divprune.lmms_eval_plugin.models.measurement import summary
from divprune.lmms_eval_plugin.runs.sample_scores import sample_scores_of
from divprune.methods.registry import fidelity_of
from divprune.outputs import FileKind, safe_output, write_whole
from divprune.records import Record, check_record_place, checksum, load_record, provenance

_SAMPLES = FileKind("samples file of a run", "one in another folder", rb'\A\{"doc_id": ')
HARNESS_PACKAGES = ("divprune", "lmms-eval", "torch", "transformers")


def run_settings(run: EvaluationRun, options: HarnessOptions, revision: str | None) -> dict[str, Any]:
    """Everything that a run's answers depend on, apart from the data, and how many are asked for.

    Args:
        run: the run.
        options: how it is run.
        revision: of the model; None where a server has it.
    """
    names = ("limit", "backend", "served_model", "dtype", "num_frames")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["system_prompt"] = lmms._resolve_system_prompt(options.system_prompt)
    given["device"] = choose_device(options.device).type if options.backend == "hf" else None
    files = [path for path in map(Path, re.split(r"[=,]", run.method)) if path.is_file()]
    given["method_files"] = checksum(files) if files else None
    return run.as_config() | given | {"model_revision": revision}


def answer_identity(settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the answer to a document depends on: not how many there are, nor who scores it."""
    others = ("limit", "tokenizer", "judge", "egoschema_url")
    own = {name: value for name, value in settings.items() if name not in others}
    return own | {"dataset": dict(data), "versions": {name: version(name) for name in HARNESS_PACKAGES}}


def finished_record(run: EvaluationRun, settings: Mapping[str, Any], options: HarnessOptions) -> Record | None:
    """Return the record that an earlier start left of a run, None if there is none, or it is to be made anew.

    Raises:
        EvaluationError: it is of another run, and would be overwritten.
        RecordError: the file is no record, and would be overwritten.
    """
    path = options.output / f"{run.name}.json"
    if not path.is_file() or not options.resume:
        check_record_place(options.output, run.name)
        _samples_file(run, options.output)
        return None
    record = load_record(path)
    if "refusal" in record.config:
        return None
    changed = [name for name, value in settings.items() if record.config.get(name) != value]
    if changed:
        told = ", ".join(f"{name} {record.config.get(name)!r}, now {settings[name]!r}" for name in changed)
        raise EvaluationError(f"{path} is of a run with {told}; name another `output`, or replace it by `resume=False`")
    return record


def refusal_record(run: EvaluationRun, settings: Mapping[str, Any], reason: str) -> Record:
    """Return the record of a run that cannot run."""
    return Record(run.name, {**settings, "refusal": " ".join(reason.split())}, [])


def run_record(
    run: EvaluationRun,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    results: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
) -> tuple[Record, list[dict[str, Any]]]:
    """Return the record of a finished run, and the sample scores of its documents.

    Args:
        run: what has run.
        settings: see `run_settings`, with what scoring used.
        data: see `data_revision`.
        results: as `simple_evaluate` returns them.
        measured: the calls of `generate`.
    """
    samples = results["samples"][run.task]
    rows = _rows(results["results"][run.task], len(samples))
    data_set = _data_set(run.task)
    metric = data_set.metric if data_set else str(rows[0]["metric"]).partition(",")[0] if rows else ""
    found = sample_scores_of(run.task, metric, samples)
    config = {
        **settings,
        "dataset": dict(data) | ({"path": Path(data["path"]).name} if "fingerprint" in data else {}),
        "fidelity": fidelity_of(run.method),
        "metric": metric,
        "statistic": data_set.statistic if data_set else "mean",
        "num_samples": len(samples),
        "lmms_eval": version("lmms-eval"),
        **_means(summary(dict(row) for row in measured)),
    }
    return Record(run.name, config, rows, provenance()), found


def save_sample_scores(run: EvaluationRun, found: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the sample scores of a run's documents, a line each."""
    path = _samples_file(run, folder)
    write_whole(path, "".join(json.dumps(sample_score, default=float) + "\n" for sample_score in found))
    return path


def _samples_file(run: EvaluationRun, folder: Path) -> Path:
    return safe_output("output", folder / f"{run.name}.samples.jsonl", _SAMPLES)


def _data_set(task: str) -> DataSet | None:
    return next((each for each in DATA_SETS if task in (each.task, each.todays_task)), None)


def _rows(metrics: Mapping[str, Any], num_samples: int) -> list[dict[str, Any]]:
    """One row a metric that has a value."""
    rows = []
    for name, value in metrics.items():
        metric, _, scorer = name.partition(",")
        if "_stderr" in metric or not scorer or not isinstance(value, Real):
            continue
        spread = metrics.get(f"{metric}_stderr,{scorer}")
        stderr = float(spread) if isinstance(spread, Real) else None
        title = metric if scorer == "none" else name
        rows.append({"metric": title, "value": float(value), "stderr": stderr, "num_samples": num_samples})
    return rows


def _means(total: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the calls took, an image or a prompt; nothing if the backend does not tell."""
    if not total:
        return {}
    items, prompts = max(1, total["num_items"]), max(1, total["num_prompts"])
    return {
        "num_visual_tokens_mean": total["num_visual_tokens"] / items,
        "num_kept_mean": total["num_kept"] / items,
        "encoding_seconds_per_prompt": total["encoding_seconds"] / prompts,
        "selection_seconds_per_prompt": total["selection_seconds"] / prompts,
        "generation_seconds_per_prompt": total["generation_seconds"] / prompts,
        "new_tokens_per_prompt": total["num_new_tokens"] / prompts,
        "peak_memory_bytes": total["peak_memory_bytes"],
    }
