"""Options that several commands take. What is left out is None where a command has to tell."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from divprune.cli.help import MODEL, OUTPUT, PRUNING, RUNNING
from divprune.errors import ArgumentError

if TYPE_CHECKING:
    from divprune.progress import Progress

DEFAULT_METHOD = "divprune"


def option(
    metavar: str,
    text: str,
    default: str | None = None,
    *,
    min: float | None = None,
    names: tuple[str, ...] = (),
    panel: str | None = None,
    completion: Callable[[str], list[str]] | None = None,
) -> Any:
    """Return an option.

    Args:
        metavar: what stands for its value.
        text: its help.
        default: shown where the function's own default says nothing.
        min: smallest value allowed.
        names: where it has others than the function's parameter.
        panel: where the help shows it, see `help`; None for that of the command's own options.
        completion: what a shell offers for the beginning of a value.
    """
    return typer.Option(
        *names,
        metavar=metavar,
        help=text,
        min=min,
        show_default=True if default is None else default,
        rich_help_panel=panel,
        autocompletion=completion,
    )


def keep_ratios_of(words: str, name: str = "keep_ratios") -> tuple[float, ...]:
    """Read keep ratios, separated by spaces or commas, of the argument `name`.

    Raises:
        ArgumentError: they are no numbers.
    """
    try:
        return tuple(float(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise ArgumentError(f"`{name}` must be numbers in (0, 1], separated by spaces, got {words!r}") from None


def counts_of(words: str) -> tuple[int, ...]:
    """Read numbers of tokens, separated by spaces or commas.

    Raises:
        ArgumentError: they are no whole numbers, or there are none.
    """
    found = words.replace(",", " ").split()
    try:
        counts = tuple(int(word) for word in found)
    except ValueError:
        counts = ()
    if not counts:
        raise ArgumentError(f"`num_keep` must be whole numbers, separated by spaces, got {words!r}")
    return counts


def how_to_prune(
    config: Path | None,
    model: str | None,
    progress: "Progress",
    *,
    method: str = DEFAULT_METHOD,
    keep_ratio: float | None = None,
    num_keep: int | None = None,
    positions: "Numbered | None" = None,
    encoder: str | None = None,
) -> dict[str, Any]:
    """Return method, keep ratio, number and positions as they were given, or as a tuned setting says.

    Args:
        config: file of the tuned setting.
        model: checkpoint that it must be of.
        progress: is told what the file stands for.
        method: given beside it.
        keep_ratio: given beside it.
        num_keep: given beside it.
        positions: given beside it.
        encoder: given beside it, where it was tuned on all that the encoder makes; not among what is returned.

    Raises:
        ArgumentError: the file is given, and something beside it.
        TuningError: the file cannot be read, or is of another model.
    """
    given = {"method": method, "keep_ratio": keep_ratio, "num_keep": num_keep, "positions": given_positions(positions)}
    if config is None:
        return given
    all_given = given | {"encoder": encoder}
    beside = [name for name, value in all_given.items() if value not in (None, DEFAULT_METHOD)]
    if beside:
        raise ArgumentError(f"`config` says how to prune; leave {' and '.join(f'`{name}`' for name in beside)} out")
    from divprune.tuned_setting import tuned_for_checkpoint

    setting = tuned_for_checkpoint(config, model)
    progress.note(f"{config}: {setting}")
    return given | setting.arguments


def complete_method(incomplete: str) -> list[str]:
    """Return the names of methods that begin with what was typed, for the shell."""
    from divprune.methods import method_names

    return [name for name in method_names() if name.startswith(incomplete)]


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not left out."""
    return {name: value for name, value in options.items() if value is not None}


class Dtype(StrEnum):
    """The number formats that `--dtype` takes."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Numbered(StrEnum):
    """What `--positions` takes."""

    original = "original"
    compact = "compact"


def given_positions(positions: Numbered | None) -> Literal["original", "compact"] | None:
    """Return positions as `PruningConfig` takes them."""
    return None if positions is None else ("compact" if positions is Numbered.compact else "original")


class AccountingOption(StrEnum):
    """The ways of counting FLOPs that `--accounting` takes."""

    paper = "paper"
    exact = "exact"


class ScopeName(StrEnum):
    """What `--scope` takes."""

    item = "item"
    frame = "frame"
    tile = "tile"
    sample = "sample"


class NewlinesName(StrEnum):
    """What `--newlines` takes."""

    budget = "budget"
    keep = "keep"
    rows = "rows"


class LocalBackendName(StrEnum):
    """Who answers, if it must be pruned anew for each run."""

    hf = "hf"
    vllm = "vllm"


class BackendName(StrEnum):
    """What `--backend` takes."""

    hf = "hf"
    vllm = "vllm"
    server = "openai-server"


class TokenizerOption(StrEnum):
    """What `--cider-tokenizer` takes."""

    auto = "auto"
    java = "java"
    python = "python"


Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object as the last line of standard output.", rich_help_panel=OUTPUT),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace what is in the way of outputs, also if another program wrote it.",
        rich_help_panel=OUTPUT,
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks and the logs of other libraries.", rich_help_panel=OUTPUT)
]

ModelOption = Annotated[
    str | None, option("PATH", "Checkpoint directory or hub name; default: the small embedded model.", panel=MODEL)
]
Page = Annotated[
    int | None, option("N", "Which page or frame of image files that have several.", "1", min=1, panel=MODEL)
]
AllowDownload = Annotated[
    bool, typer.Option("--allow-download", help="Fetch images that are http(s) URLs.", rich_help_panel=MODEL)
]
Device = Annotated[str, option("NAME", "Where it runs: auto, cpu, cuda, cuda:1, mps.", panel=RUNNING)]
WeightsDtype = Annotated[Dtype, option("NAME", "Weights as auto, float32, float16 or bfloat16.", panel=RUNNING)]

MethodName = Annotated[
    str, option("NAME", "Which tokens to keep; see `divprune methods`.", panel=PRUNING, completion=complete_method)
]
KeepRatio = Annotated[
    float | None,
    option("FRACTION", "Fraction of the visual tokens that stays (not what goes), in (0, 1].", "0.098", panel=PRUNING),
]
NumKeep = Annotated[int | None, option("N", "Visual tokens kept, instead of a fraction.", panel=PRUNING)]
ScopeOption = Annotated[
    ScopeName, option("NAME", "What shares one budget: each item, frame or tile, or the whole sample.", panel=PRUNING)
]
NewlinesOption = Annotated[
    NewlinesName,
    option("NAME", "Newline tokens: part of the budget, or on top: keep (all), rows (of kept tokens).", panel=PRUNING),
]
EncoderSpec = Annotated[
    str | None,
    option(
        "SPEC",
        "Encode less, before tokens are selected: tome:r=8 merges patches, pixel-dedup skips repeated ones.",
        "none",
        panel=PRUNING,
    ),
]
ConfigFile = Annotated[
    Path | None,
    option(
        "FILE",
        "What `divprune tune` found, instead of --method, --keep-ratio and --positions.",
        names=("--config",),
        panel=PRUNING,
    ),
]
PositionsOption = Annotated[
    Numbered | None,
    option(
        "HOW",
        "Kept tokens keep their position numbers (original), or are numbered anew (compact).",
        "original where the model can",
        panel=PRUNING,
    ),
]
NumFramesSampled = Annotated[int, option("N", "Frames sampled from each video.", min=1, panel=MODEL)]
AccountingName = Annotated[
    AccountingOption, option("NAME", "paper (its Eq. 5) or exact (every product, encoder included).")
]

# Of commands that run data sets through lmms-eval.
LocalBackend = Annotated[
    LocalBackendName | None,
    option("NAME", "Who answers: hf (transformers) or vllm, in this process.", "hf", panel=RUNNING),
]
BackendOption = Annotated[
    BackendName | None,
    option(
        "NAME", "Who answers: hf (transformers), vllm, or openai-server, one that runs already.", "hf", panel=RUNNING
    ),
]
BaseUrl = Annotated[
    str | None, option("URL", "Of the server, such as http://127.0.0.1:8000/v1.", "none", panel=RUNNING)
]
ServedModel = Annotated[str | None, option("NAME", "The server's name of the model.", "--model", panel=RUNNING)]
NumConcurrent = Annotated[int | None, option("N", "Requests to the server at a time.", "16", min=1, panel=RUNNING)]
BatchSize = Annotated[int | None, option("N", "Prompts answered together.", "1", min=1, panel=RUNNING)]
OtherDevice = Annotated[
    str | None, option("NAME", "Where it runs: auto, cpu, cuda, cuda:1, mps.", "auto", panel=RUNNING)
]
OtherDtype = Annotated[
    Dtype | None, option("NAME", "Weights as auto, float32, float16 or bfloat16.", "auto", panel=RUNNING)
]
NumFrames = Annotated[int | None, option("N", "Frames sampled from each video.", "8", min=1, panel=MODEL)]
SystemPrompt = Annotated[
    str | None, option("TEXT", "Words before each conversation, or a file of them.", "none", panel=MODEL)
]
Data = Annotated[
    Path | None,
    option("FOLDER", "Data sets on disk, a folder each, named by key: FOLDER/pope.", "the hub", panel=MODEL),
]
TasksFolder = Annotated[
    list[Path] | None, option("FOLDER", "Task files of lmms-eval of your own; repeat for several.", "none", panel=MODEL)
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Begin anew, also where an earlier run stopped.",
        show_default="resume",
        rich_help_panel=RUNNING,
    ),
]
CiderTokenizer = Annotated[
    TokenizerOption | None,
    option(
        "NAME",
        "Tokenizer of captions for CIDEr: java (the official one), python (ours), or auto: java, or stop.",
        "auto",
        panel=RUNNING,
    ),
]
EgoschemaUrl = Annotated[
    str | None, option("URL", "Where EgoSchema's answers are scored.", "its own server", panel=RUNNING)
]
