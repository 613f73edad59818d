"""`divprune flops`: what a prefill costs with and without pruning, from sizes alone."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from divprune.budget import Budget
from divprune.cli.failures import CommandError
from divprune.cli.screen import Screen
from divprune.cli.tables import listing
from divprune.efficiency.equal_flops import num_keep_for_ratio
from divprune.efficiency.flops import Accounting, Cost, compare
from divprune.efficiency.reference_models import ARCHITECTURES, Architecture, architecture_config
from divprune.efficiency.shapes import ModelShape, model_shape
from divprune.efficiency.workloads import Workload, paper_text_lengths, paper_workloads
from divprune.errors import DivpruneError, first_line
from divprune.methods import Method, get_method

DEFAULT_KEEP_RATIO = 0.098
TERA = 1e12


@dataclass(frozen=True)
class FlopsOptions:
    """The arguments of `divprune flops`, as typed."""

    model: str | None
    method: str
    keep_ratio: float | None
    num_keep: int | None
    target_percent: float | None
    layer: int | None
    text_tokens: int | None
    visual_tokens: int | None
    accounting: Accounting


@dataclass(frozen=True)
class Subject:
    """A model and the prompts that its cost is averaged over."""

    title: str
    shape: ModelShape
    workloads: list[Workload]
    keep_ratio: float


def show_flops(options: FlopsOptions, screen: Screen) -> None:
    """Print one row a model; without a model, the paper's four.

    Raises:
        CommandError: an argument is out of range, or the model or the target cannot be had.
    """
    try:
        method = _method(options)
        rows = [_row(subject, method, options) for subject in _subjects(options)]
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    if method.calibrated_on is not None:
        screen.note(f"{method.name} was calibrated on {method.calibrated_on}; sizes alone do not tell whether it fits")
    columns = ("model", "method", "kept", "full TFLOP", "pruned TFLOP", "ratio %")
    screen.show(listing(columns, [_cells(row) for row in rows]))
    screen.show(_explanation(options.accounting))
    screen.result({"rows": rows})


def _method(options: FlopsOptions) -> Method:
    method = get_method(options.method)
    if options.layer is None:
        return method
    if "layer" not in {field.name for field in dataclasses.fields(method)}:
        raise CommandError(f"--layer: method {method.name!r} acts {method.acts} only")
    changed: Any = {"layer": options.layer}
    return dataclasses.replace(method, **changed)


def _subjects(options: FlopsOptions) -> list[Subject]:
    if options.model is None:
        return [_named(architecture, options) for architecture in ARCHITECTURES]
    for architecture in ARCHITECTURES:
        if options.model.lower() == architecture.name:
            return [_named(architecture, options)]
    return [_configured(options.model, options)]


def _named(architecture: Architecture, options: FlopsOptions) -> Subject:
    config = architecture_config(architecture.name)
    shape = model_shape(config, architecture.encoder_passes, pooled_video=bool(architecture.frames))
    workloads = [_overridden(workload, options) for workload in paper_workloads(architecture)]
    return Subject(architecture.title, shape, workloads, architecture.keep_ratio)


def _configured(name: str, options: FlopsOptions) -> Subject:
    config = _read_config(name)
    shape = model_shape(config)
    visual = options.visual_tokens
    if visual is None:
        visual = _visual_tokens(config, shape)
    workloads = [_overridden(Workload(text, visual), options) for text in paper_text_lengths()]
    return Subject(name, shape, workloads, DEFAULT_KEEP_RATIO)


def _visual_tokens(config: PreTrainedConfig, shape: ModelShape) -> int:
    """How many visual tokens one picture becomes, where that does not depend on the picture."""
    if shape.tower is None or config.model_type != "llava":
        raise CommandError(
            f"--visual-tokens is needed: how many a {config.model_type!r} model makes is not told by its config alone"
        )
    return shape.tower.projected_tokens


def _overridden(workload: Workload, options: FlopsOptions) -> Workload:
    text, visual = options.text_tokens, options.visual_tokens
    return Workload(
        workload.num_text_tokens if text is None else text, workload.num_visual_tokens if visual is None else visual
    )


def _read_config(name: str) -> PreTrainedConfig:
    path = Path(name).expanduser()
    if not path.exists():
        known = ", ".join(architecture.name for architecture in ARCHITECTURES)
        raise CommandError(f"--model {name} is neither one of {known} nor a config.json or the directory of one")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    # Damaged files raise whatever the parser of the day raises.
    except Exception as error:
        raise CommandError(f"cannot read the config of {name}: {first_line(error)}") from None
    return config


def _row(subject: Subject, method: Method, options: FlopsOptions) -> dict[str, Any]:
    budget = _budget(subject, method, options)
    cost = compare(subject.shape, subject.workloads, method, budget, options.accounting)
    return {
        "model": subject.title,
        "method": method.name,
        "accounting": options.accounting,
        "keep_ratio": budget.keep_ratio if budget else None,
        "num_keep": budget.num_keep if budget else None,
        "full_tflop": cost.full_flop / TERA,
        "pruned_tflop": cost.pruned_flop / TERA,
        "ratio_percent": cost.ratio * 100,
        **_parts(cost),
    }


def _parts(cost: Cost) -> dict[str, float | None]:
    parts = {"encoder_tflop": cost.encoder_flop, "selection_tflop": cost.selection_flop}
    return {name: None if flop is None else flop / TERA for name, flop in parts.items()}


def _budget(subject: Subject, method: Method, options: FlopsOptions) -> Budget | None:
    given = (options.keep_ratio, options.num_keep, options.target_percent)
    if sum(value is not None for value in given) > 1:
        raise CommandError("give one of --keep-ratio, --num-keep and --target-percent")
    if options.target_percent is not None:
        target = options.target_percent / 100
        if not 0 < target <= 1:
            raise CommandError(f"--target-percent must be in (0, 100], got {options.target_percent}")
        return Budget(num_keep=num_keep_for_ratio(target, subject.shape, subject.workloads, method, options.accounting))
    if method.count == "schedule":
        if options.keep_ratio is not None or options.num_keep is not None:
            raise CommandError(f"--method {method.name} says itself how much it keeps; leave out the --keep options")
        return None
    if options.num_keep is not None:
        return Budget(num_keep=options.num_keep)
    return Budget(keep_ratio=subject.keep_ratio if options.keep_ratio is None else options.keep_ratio)


def _cells(row: dict[str, Any]) -> Sequence[str]:
    kept = f"{row['keep_ratio']:g}" if row["keep_ratio"] is not None else f"{row['num_keep'] or 'schedule'}"
    figures = (f"{row['full_tflop']:.3f}", f"{row['pruned_tflop']:.3f}", f"{row['ratio_percent']:.2f}")
    return (row["model"], row["method"], kept, *figures)


def _explanation(accounting: Accounting) -> str:
    if accounting == "paper":
        return "Multiply-accumulates of the language model's prefill (Eq. 5), means over the paper's data sets."
    return "All operations of a prefill, two a multiply-accumulate: encoder, selection, language model, logits."
