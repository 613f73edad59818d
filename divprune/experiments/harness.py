"""Run data sets through lmms-eval: how, and on what terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from divprune.distributed import is_main_process
from divprune.errors import ArgumentError, MissingDependencyError
from divprune.evaluation.cells import Cell
from divprune.progress import SILENT, Progress

HARNESS = "divprune.lmms_eval_plugin.runs.run_cells"
SERVER = "openai-server"

_ONLY_WITH = {
    "base_url": (SERVER,),
    "served_model": (SERVER,),
    "num_concurrent": (SERVER,),
    "batch_size": ("hf", "vllm"),
    "device": ("hf",),
    "dtype": ("hf", "vllm"),
    "system_prompt": ("hf",),
}


@dataclass(frozen=True)
class HarnessSettings:
    """How data sets are run; None for what is left to the harness. See `HarnessOptions` of the plug-in.

    Attributes:
        backend: "hf" (transformers), "vllm", or "openai-server", one that runs already.
        base_url: of the server.
        served_model: the server's name of the model.
        num_concurrent: requests to the server at a time.
        batch_size: prompts answered together.
        device: where it runs.
        dtype: of the weights.
        num_frames: sampled from each video.
        system_prompt: words before each conversation, or a file of them.
        data: data sets on disk, a folder each, named by key.
        include_paths: folders of task files of lmms-eval of your own.
        tokenizer: of captions: "auto", "java" or "python".
        egoschema_url: where EgoSchema's answers are scored.
    """

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
        """What is not left out, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def is_server(self) -> bool:
        """Whether a server answers, which was started with one method and one keep ratio."""
        return self.backend == SERVER

    def check(self) -> None:
        """Refuse what does not apply to the backend, and folders that are not there.

        Raises:
            ArgumentError: says which argument, and why.
        """
        backend = self.backend or "hf"
        for name in self.given:
            wanted = _ONLY_WITH.get(name, (backend,))
            if backend not in wanted:
                raise ArgumentError(f"`{name}` is for `backend` {' and '.join(wanted)}, not for {backend}")
        if self.is_server and self.base_url is None:
            raise ArgumentError("`backend` openai-server needs `base_url`, such as http://127.0.0.1:8000/v1")
        folders = [("data", self.data), *(("include_paths", path) for path in self.include_paths or ())]
        for name, folder in folders:
            if folder is not None and not folder.is_dir():
                raise ArgumentError(f"`{name}` {folder}: there is no such folder")


def run_in_harness(
    cells: Sequence[Cell],
    settings: HarnessSettings,
    progress: Progress = SILENT,
    *,
    output: Path,
    limit: int | None = None,
    resume: bool = True,
    debug: bool = False,
) -> None:
    """Have runs answered and scored; each leaves its record in the output folder.

    Args:
        cells: the runs.
        settings: how.
        progress: is told how far it is; all processes but the main one are silent.
        output: where records go.
        limit: questions of each data set; None for all.
        resume: whether to go on where an earlier run stopped.
        debug: whether lmms-eval shows its logs and bars.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        EvaluationError: something that a run needs is missing, or a scorer failed.
    """
    harness = _harness()
    options = harness.HarnessOptions(output=output, limit=limit, resume=resume, debug=debug, **settings.given)
    harness.run_cells(cells, options, progress if is_main_process() else SILENT)


def _harness() -> Any:
    try:
        return import_module(HARNESS)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'running data sets needs lmms-eval: pip install "divprune[eval]" ({error})'
        ) from None
