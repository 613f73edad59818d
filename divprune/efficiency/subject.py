"""Measure methods on a checkpoint, or on an architecture with random weights: what `divprune bench` shows."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divprune.budget import budget_or_default
from divprune.checkpoints import EMBEDDED, checkpoint_config, choose_device, load_model
from divprune.config import Newlines, Positions, PruningConfig, Scope
from divprune.efficiency.bench import UNPRUNED_VARIANT, Measurement, Variant, run_bench, run_once
from divprune.efficiency.memory import in_own_process, peak_memory_bytes
from divprune.efficiency.random_models import random_inputs, random_model
from divprune.efficiency.reference_models import architecture_config, get_architecture
from divprune.embedded.examples import DEFAULT_PROMPT, Example, bundled_scenes
from divprune.errors import ArgumentError, argument_errors
from divprune.huggingface.fitting import require_prunable
from divprune.media import load_image, load_video
from divprune.methods import get_method, method_title
from divprune.outputs import short
from divprune.progress import SILENT, Progress, quiet_logs
from divprune.prompting import build_inputs
from divprune.records import Record, check_record_place, provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and how; picklable, for the processes that measure memory.

    Attributes:
        model: checkpoint directory or hub name; None for the embedded model.
        architecture: a model of the paper, such as "llava-1.5-7b", whose shape gets random weights instead.
        layers: decoder layers of the architecture; None for all.
        text_tokens: of the architecture's prompt.
        image: the model's image, a file or a URL; None for a bundled scene.
        page: which page or frame of an image file that has several, from 1; None for the first.
        allow_download: whether an http(s) URL is fetched.
        video: a video instead.
        num_frames: sampled from the video.
        prompt: what the model is asked.
        methods: as `get_method` reads them; the unpruned model and random tokens are always measured.
        keep_ratio: fraction of the visual tokens kept, in (0, 1]; 0.098 if `num_keep` is None too.
        num_keep: how many are kept of each item, instead.
        scope: as for `prune`.
        newlines: as for `prune`.
        encoder: as for `prune`, such as "tome:r=8", beside each method; the unpruned model has none.
        positions: as for `prune`; methods inside the LLM always leave them as they are.
        new_tokens: generated in each call.
        repeats: rounds, after a warm-up.
        max_seconds: no new round starts after this; the first always does.
        memory: also measure peak memory, a process a method.
        output: a folder that gets a record.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto" (bfloat16 if random), "float32", "float16" or "bfloat16".
    """

    model: str | None = None
    architecture: str | None = None
    layers: int | None = None
    text_tokens: int = 48
    image: Path | str | None = None
    page: int | None = None
    allow_download: bool = False
    video: Path | None = None
    num_frames: int = 8
    prompt: str | None = None
    methods: tuple[str, ...] = ("divprune",)
    keep_ratio: float | None = None
    num_keep: int | None = None
    scope: Scope = "item"
    newlines: Newlines = "budget"
    encoder: str | None = None
    positions: Positions | None = None
    new_tokens: int = 32
    repeats: int = 5
    max_seconds: float = 600.0
    memory: bool = True
    output: Path | None = None
    device: str = "auto"
    dtype: str = "auto"

    @property
    def title(self) -> str:
        """What is measured, in a word: for the table and for the record's name."""
        if self.architecture is None:
            return EMBEDDED if self.model is None else Path(self.model).name
        depth = "" if self.layers is None else f"-{self.layers}-layers"
        return self.architecture.lower() + depth

    @property
    def record_name(self) -> str:
        """What the record is called."""
        return f"bench-{self.title}"


@dataclass(frozen=True)
class BenchSubject:
    """A model in evaluation mode, and the inputs of one prompt on its device."""

    model: "PreTrainedModel"
    inputs: dict[str, Any]


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        title: of the model.
        config: the settings, ready for a record.
        rows: one a method, the unpruned model first, ready for a record.
        record: the record's file; None if none was wanted.
    """

    title: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    record: Path | None


def measure_methods(options: BenchOptions, progress: Progress = SILENT) -> BenchResult:
    """Measure time, memory and cache of several methods in one run, next to the unpruned model.

    Raises:
        ArgumentError: an argument cannot work, or a method does not fit the model.
    """
    with argument_errors():
        _check(options)
        rows = _variants(options)
        origin = provenance()
        # Read once, and not by each process that measures memory.
        example = None if options.architecture is not None else _example(options)
        for medium in () if example is None else example.media:
            medium.tell(progress)
        _require_prunable(options, example, rows)
        subject, measurements, table = measure_variants(
            partial(load_subject, options, example),
            rows,
            progress,
            num_new_tokens=options.new_tokens,
            repeats=options.repeats,
            max_seconds=options.max_seconds,
            memory=options.memory,
        )
    config = _config(options, subject, measurements)
    path = None
    if options.output is not None:
        record = Record(options.record_name, config, table, origin | {"machine": provenance()["machine"]})
        path = record.save(options.output)
    return BenchResult(options.title, config, table, path)


def _check(options: BenchOptions) -> None:
    """Refuse what cannot work, before a model is built."""
    if options.architecture is None:
        if options.layers is not None:
            raise ArgumentError("`layers` goes with `architecture`: a checkpoint has the layers that it has")
    elif options.model is not None:
        raise ArgumentError("give `model` or `architecture`, not both")
    elif options.image is not None or options.video is not None:
        raise ArgumentError("`image` and `video` go with `model`: `architecture` brings its own random image")
    else:
        get_architecture(options.architecture)
    if options.image is not None and options.video is not None:
        raise ArgumentError("give `image` or `video`, not both")
    budget_or_default(options.keep_ratio, options.num_keep)
    if options.output is not None:
        if not os.path.isdir(options.output):
            raise ArgumentError(f"`output` {short(options.output)} is no directory; create it first")
        check_record_place(options.output, options.record_name)


def _variants(options: BenchOptions) -> list[Variant]:
    """Return the rows: unpruned, random, and the methods that were named."""
    rows = [UNPRUNED_VARIANT]
    for name in dict.fromkeys(("random", *options.methods)):
        method = get_method(name)
        keep_ratio, num_keep = (options.keep_ratio, options.num_keep) if method.takes_budget else (None, None)
        positions = None if method.layers else options.positions
        values: Any = {"scope": options.scope, "newlines": options.newlines, "encoder": options.encoder}
        values |= {"keep_ratio": keep_ratio, "num_keep": num_keep, "positions": positions}
        config = PruningConfig.parse(method, **values)
        rows.append(Variant(method_title(name), config))
    return rows


def _require_prunable(options: BenchOptions, example: Example | None, variants: Sequence[Variant]) -> None:
    """Refuse settings that do not fit the model or what it is shown, before any process reads its weights."""
    if options.architecture is None:
        model_config = checkpoint_config(options.model)
        shown = {medium.kind for medium in example.media} if example else set()
    else:
        model_config = architecture_config(options.architecture, options.layers)
        shown = {"video" if get_architecture(options.architecture).frames else "image"}
    require_prunable(model_config, [each.config for each in variants if each.config is not None], shown)


def measure_variants(
    load: Callable[[], BenchSubject],
    variants: Sequence[Variant],
    progress: Progress = SILENT,
    *,
    num_new_tokens: int,
    repeats: int,
    max_seconds: float = float("inf"),
    memory: bool = True,
) -> tuple[BenchSubject, list[Measurement], list[dict[str, Any]]]:
    """Measure variants on one model in turns, their peak memory first, each in a process of its own.

    Args:
        load: returns the model and its prompt; picklable, for these processes.
        variants: what is compared.
        progress: is told how far it is.
        num_new_tokens: generated in each call.
        repeats: rounds, after a warm-up.
        max_seconds: no new round starts after this; the first always does.
        memory: whether to measure peak memory.

    Returns:
        The model, what was measured, and one row a variant, ready for a record.

    Raises:
        ValueError: a variant does not fit the model.
    """
    peaks: list[int | None] = [None] * len(variants)
    if memory and any(each.config is not None and each.config.method.clip_folder for each in variants):
        # Whose a vision tower is, only its weights tell.
        with progress.working("checking the vision tower"):
            in_own_process(_require_fitting, load, variants)
    if memory:
        # Before the timing model is there: both together may not fit.
        with progress.counting("peak memory", len(variants)) as advance:
            for place, variant in enumerate(variants):
                peaks[place] = in_own_process(_peak_memory_of, load, variant)
                advance(1)
    with progress.working("loading the model"):
        subject = load()
    _refuse_misfits(subject, variants)
    with progress.counting("measuring", len(variants) * (1 + repeats)) as advance:
        measurements = run_bench(
            subject.model,
            subject.inputs,
            variants,
            num_new_tokens=num_new_tokens,
            repeats=repeats,
            max_seconds=max_seconds,
            after_call=lambda: advance(1),
        )
    rows = [each.as_row() | {"peak_memory_bytes": peak} for each, peak in zip(measurements, peaks, strict=True)]
    return subject, measurements, rows


def _config(options: BenchOptions, subject: BenchSubject, measurements: Sequence[Measurement]) -> dict[str, Any]:
    kept = next(each.variant.config for each in measurements if each.variant.config is not None)
    return {
        "model": options.title,
        "weights": "checkpoint" if options.architecture is None else "random",
        "num_layers": subject.model.config.get_text_config().num_hidden_layers,
        "num_prompt_tokens": subject.inputs["input_ids"].shape[1],
        "keep_ratio": kept.keep_ratio,
        "num_keep": kept.num_keep,
        "scope": kept.scope,
        "newlines": kept.newlines,
        "encoder": None if kept.encoder is None else str(kept.encoder),
        "positions": kept.positions,
        "num_new_tokens": options.new_tokens,
        "warm_up": 1,
        "repeats": len(measurements[0].timings),
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "device": subject.model.device.type,
        **measurements[0].beside,
    }


def load_subject(options: BenchOptions, example: Example | None = None) -> BenchSubject:
    """Build or load the model and its prompt: `example`, or what the options name."""
    import torch

    device = choose_device(options.device)
    if options.architecture is None:
        loaded = load_model(options.model, device, options.dtype)
        example = example or _example(options)
        return BenchSubject(loaded.model, build_inputs(loaded, example.media, example.prompt))
    dtype = torch.bfloat16 if options.dtype == "auto" else getattr(torch, options.dtype)
    config = architecture_config(options.architecture, options.layers)
    model = random_model(config, dtype=dtype, device=device)
    return BenchSubject(model, random_inputs(model, get_architecture(options.architecture), options.text_tokens))


def _example(options: BenchOptions) -> Example:
    prompt = options.prompt or DEFAULT_PROMPT
    if options.video is not None:
        return Example((load_video(options.video, options.num_frames),), prompt)
    if options.image is not None:
        image = load_image(options.image, page=options.page, allow_download=options.allow_download)
        return Example((image,), prompt)
    return bundled_scenes((prompt,))[0]


def _require_fitting(load: Callable[[], BenchSubject], variants: Sequence[Variant]) -> None:
    """Load the model and refuse variants that do not fit it; meant for a process of its own."""
    with quiet_logs():
        _refuse_misfits(load(), variants)


def _refuse_misfits(subject: BenchSubject, variants: Sequence[Variant]) -> None:
    """Let every method refuse the model before the first is measured."""
    for variant in variants:
        with variant.on(subject.model):
            pass


def _peak_memory_of(load: Callable[[], BenchSubject], variant: Variant) -> int:
    """Return the peak memory of one variant in bytes; meant for a process of its own."""
    with quiet_logs():
        subject = load()
    return peak_memory_bytes(lambda: run_once(subject.model, subject.inputs, variant, 2), subject.model.device)
