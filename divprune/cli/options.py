"""The arguments of `divprune run`, and every check that needs neither torch nor a model: mistakes are told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.budget import Budget
from divprune.cli.examples import Ask, bundled_scenes
from divprune.cli.failures import CommandError
from divprune.cli.outputs import check_report
from divprune.media import Medium, load_clip, load_picture

DEFAULT_KEEP_RATIO = 0.098  # the paper's: 56 of 576 tokens
DEFAULT_PROMPT = "Describe the picture."


@dataclass(frozen=True)
class RunOptions:
    """The arguments of `divprune run`, as typed."""

    model: str | None
    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    num_frames: int
    prompts: tuple[str, ...]
    method: str
    keep_ratio: float | None
    num_keep: int | None
    compare: bool
    report: Path | None
    max_new_tokens: int
    repeats: int
    device: str
    dtype: str

    @property
    def budget(self) -> Budget:
        """How much is kept: the paper's share if nothing else is asked for.

        Raises:
            CommandError: both are given, or one is out of range.
        """
        return checked_budget(self.keep_ratio, self.num_keep)


def checked_budget(keep_ratio: float | None, num_keep: int | None) -> Budget:
    """The budget that two options name; the paper's share if they name none.

    Raises:
        CommandError: both are given, or one is out of range.
    """
    if keep_ratio is not None and num_keep is not None:
        raise CommandError("give --keep-ratio or --num-keep, not both")
    default = DEFAULT_KEEP_RATIO if num_keep is None else None
    try:
        return Budget(default if keep_ratio is None else keep_ratio, num_keep)
    except ValueError as error:
        raise CommandError(str(error)) from None


def check_options(options: RunOptions) -> None:
    """Refuse what cannot work, before anything slow begins.

    Raises:
        CommandError: says which option, and why.
    """
    _ = options.budget
    if options.report is not None:
        check_report(options.report, (*options.images, *options.videos))
    if any(not prompt.strip() for prompt in options.prompts):
        raise CommandError("--prompt is empty; ask something, or leave it out")


def read_asks(options: RunOptions) -> Sequence[Ask]:
    """The questions, with every picture and clip decoded; the bundled scenes if none is given.

    Raises:
        CommandError: a file is missing, damaged or of another kind.
    """
    if not options.images and not options.videos:
        return bundled_scenes(options.prompts)
    media: list[Medium] = [load_picture(path) for path in options.images]
    media += [load_clip(path, options.num_frames) for path in options.videos]
    return [Ask(tuple(media), prompt) for prompt in options.prompts or (DEFAULT_PROMPT,)]
