"""Options of commands that run data sets through lmms-eval. What is left out is None, so that a command can tell."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from divprune.cli.arguments import Dtype
from divprune.cli.failures import CommandError


class LocalBackendName(StrEnum):
    """Who answers, if it must be pruned anew for each cell."""

    hf = "hf"
    vllm = "vllm"


class BackendName(StrEnum):
    """What `--backend` takes."""

    hf = "hf"
    vllm = "vllm"
    server = "openai-server"


class Tokenizer(StrEnum):
    """What `--cider-tokenizer` takes."""

    auto = "auto"
    java = "java"
    python = "python"


def _option(metavar: str, text: str, default: str, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=default, **more)


LocalBackend = Annotated[
    LocalBackendName | None, _option("NAME", "Who answers: hf (transformers) or vllm, in this process.", "hf")
]
Backend = Annotated[
    BackendName | None,
    _option("NAME", "Who answers: hf (transformers), vllm, or openai-server, one that runs already.", "hf"),
]
BaseUrl = Annotated[str | None, _option("URL", "Of the server, such as http://127.0.0.1:8000/v1.", "none")]
ServedModel = Annotated[str | None, _option("NAME", "The server's name of the model.", "--model")]
NumConcurrent = Annotated[int | None, _option("N", "Requests to the server at a time.", "16", min=1)]
BatchSize = Annotated[int | None, _option("N", "Prompts answered together.", "1", min=1)]
Device = Annotated[str | None, _option("NAME", "Where it runs: auto, cpu, cuda, cuda:1, mps.", "auto")]
WeightsDtype = Annotated[Dtype | None, _option("NAME", "Weights as auto, float32, float16 or bfloat16.", "auto")]
NumFrames = Annotated[int | None, _option("N", "Frames sampled from each clip.", "8", min=1)]
SystemPrompt = Annotated[str | None, _option("TEXT", "Words before each conversation, or a file of them.", "none")]
Data = Annotated[
    Path | None, _option("FOLDER", "Data sets on disk, a folder each, named by key: FOLDER/pope.", "the hub")
]
TasksFolder = Annotated[
    list[Path] | None, _option("FOLDER", "Task files of lmms-eval of your own; repeat for several.", "none")
]
Resume = Annotated[
    bool | None,
    typer.Option("--resume/--no-resume", help="Go on where an earlier run stopped.", show_default="resume"),
]
CiderTokenizer = Annotated[
    Tokenizer | None,
    _option(
        "NAME", "Captions split by the official tokenizer (java), by ours (python), or auto: java, or stop.", "auto"
    ),
]
EgoschemaUrl = Annotated[str | None, _option("URL", "Where EgoSchema's answers are scored.", "its own server")]

_ONLY_WITH = {
    "base_url": ("openai-server",),
    "served_model": ("openai-server",),
    "num_concurrent": ("openai-server",),
    "batch_size": ("hf", "vllm"),
    "device": ("hf",),
    "dtype": ("hf", "vllm"),
    "system_prompt": ("hf",),
}


@dataclass(frozen=True)
class Running:
    """How data sets are run, as typed; None for what was left out."""

    backend: str | None = None
    base_url: str | None = None
    served_model: str | None = None
    num_concurrent: int | None = None
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    num_frames: int | None = None
    system_prompt: str | None = None
    data: Path | None = None
    include_paths: tuple[Path, ...] | None = None
    tokenizer: str | None = None
    egoschema_url: str | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What was typed, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def is_server(self) -> bool:
        """Whether a server answers, which was started with one method and one share."""
        return self.backend == BackendName.server

    def check(self) -> None:
        """Refuse what does not apply to the backend, and folders that are not there.

        Raises:
            CommandError: says which option, and why.
        """
        backend = self.backend or "hf"
        for name in self.given:
            wanted = _ONLY_WITH.get(name, (backend,))
            if backend not in wanted:
                raise CommandError(f"{option_of(name)} is for --backend {' and '.join(wanted)}, not for {backend}")
        if self.is_server and self.base_url is None:
            raise CommandError("--backend openai-server needs --base-url, such as http://127.0.0.1:8000/v1")
        folders = [("data", self.data), *(("include_paths", path) for path in self.include_paths or ())]
        for name, folder in folders:
            if folder is not None and not folder.is_dir():
                raise CommandError(f"{option_of(name)} {folder}: there is no such folder")


_NAMES = {"include_paths": "tasks-folder", "tokenizer": "cider-tokenizer"}


def option_of(name: str) -> str:
    """Return what is typed for a field."""
    return f"--{_NAMES.get(name, name).replace('_', '-')}"


def shares_of(words: str) -> tuple[float, ...]:
    """Read shares, separated by spaces or commas.

    Raises:
        CommandError: they are no numbers.
    """
    try:
        return tuple(float(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise CommandError(f"--keep-ratios must be numbers in (0, 1], separated by spaces, got {words!r}") from None
