"""What `divprune bench` measures: a checkpoint or an architecture with random weights, and one prompt for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divprune.budget import Budget
from divprune.checkpoints import EMBEDDED, choose_device, load_model
from divprune.cli.examples import Ask, bundled_scenes
from divprune.cli.failures import CommandError
from divprune.cli.options import DEFAULT_KEEP_RATIO, DEFAULT_PROMPT
from divprune.cli.screen import quiet_logs, quiet_progress_bars
from divprune.efficiency import (
    UNPRUNED,
    Variant,
    architecture_config,
    get_architecture,
    peak_memory_bytes,
    random_inputs,
    random_model,
    run_once,
)
from divprune.media import load_clip, load_picture
from divprune.methods import get_method, method_title
from divprune.records import check_record_place

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BenchOptions:
    """The arguments of `divprune bench`, as typed; picklable, for the processes that measure memory."""

    model: str | None
    architecture: str | None
    layers: int | None
    text_tokens: int
    image: Path | None
    video: Path | None
    num_frames: int
    prompt: str
    methods: tuple[str, ...]
    keep_ratio: float | None
    num_keep: int | None
    new_tokens: int
    repeats: int
    max_seconds: float
    memory: bool
    output: Path | None
    device: str
    dtype: str

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
class Subject:
    """A model in evaluation mode, and the inputs of one prompt on its device."""

    model: "PreTrainedModel"
    inputs: dict[str, Any]


def check_bench_options(options: BenchOptions) -> None:
    """Refuse what cannot work, before a model is built.

    Raises:
        CommandError: says which option, and why.
    """
    _ = variants(options)
    if options.architecture is None:
        if options.layers is not None:
            raise CommandError("--layers goes with --architecture: a checkpoint has the layers that it has")
    elif options.model is not None:
        raise CommandError("give --model or --architecture, not both")
    elif options.image is not None or options.video is not None:
        raise CommandError("--image and --video go with --model: --architecture brings its own random picture")
    else:
        get_architecture(options.architecture)
    if options.image is not None and options.video is not None:
        raise CommandError("give --image or --video, not both")
    if options.output is not None:
        if not options.output.is_dir():
            raise CommandError(f"--output {options.output} is no directory; create it first")
        check_record_place(options.output, options.record_name)


def variants(options: BenchOptions) -> list[Variant]:
    """Return the rows: unpruned, random, and the methods that were named.

    Raises:
        CommandError: the share or the count is out of range.
        UnknownMethodError: no method has this name.
    """
    if options.keep_ratio is not None and options.num_keep is not None:
        raise CommandError("give --keep-ratio or --num-keep, not both")
    default = DEFAULT_KEEP_RATIO if options.num_keep is None else None
    budget = Budget(default if options.keep_ratio is None else options.keep_ratio, options.num_keep)
    rows = [UNPRUNED]
    for name in dict.fromkeys(("random", *options.methods)):
        method = get_method(name)
        rows.append(Variant(method_title(name), method, budget if method.count == "exact" else None))
    return rows


def load_subject(options: BenchOptions) -> Subject:
    """Build or load the model and its prompt."""
    import torch

    device = choose_device(options.device)
    if options.architecture is None:
        return _checkpoint(options, device)
    dtype = torch.bfloat16 if options.dtype == "auto" else getattr(torch, options.dtype)
    config = architecture_config(options.architecture, options.layers)
    model = random_model(config, dtype=dtype, device=device)
    return Subject(model, random_inputs(model, get_architecture(options.architecture), options.text_tokens))


def _checkpoint(options: BenchOptions, device: Any) -> Subject:
    from divprune.prompting import build_inputs

    ask = _ask(options)
    loaded = load_model(options.model, device, options.dtype)
    return Subject(loaded.model, build_inputs(loaded, ask.media, ask.prompt))


def _ask(options: BenchOptions) -> Ask:
    prompt = options.prompt or DEFAULT_PROMPT
    if options.video is not None:
        return Ask((load_clip(options.video, options.num_frames),), prompt)
    if options.image is not None:
        return Ask((load_picture(options.image),), prompt)
    return bundled_scenes((prompt,))[0]


def peak_memory_of(options: BenchOptions, index: int) -> int:
    """Return the peak memory of one variant in bytes; meant for a process of its own."""
    with quiet_logs(False), quiet_progress_bars(False):
        subject = load_subject(options)
    variant = variants(options)[index]
    return peak_memory_bytes(lambda: run_once(subject.model, subject.inputs, variant, 2), subject.model.device)
