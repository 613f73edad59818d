"""Options of runs through lmms-eval, for whoever plans them and whoever runs them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from divprune.errors import ArgumentError

Backend = Literal["hf", "vllm", "openai-server"]
CIDER_TOKENIZERS = Literal["auto", "java", "python"]
REQUESTS_FOR_VLLM = 64

_ONLY_WITH = {
    "base_url": ("openai-server",),
    "served_model": ("openai-server",),
    "num_concurrent": ("openai-server",),
    "batch_size": ("hf", "vllm"),
    "device": ("hf",),
    "dtype": ("hf", "vllm"),
    "system_prompt": ("hf",),
    "retention": ("hf",),
}


@dataclass(frozen=True)
class HarnessOptions:
    """How runs are run.

    Attributes:
        output: where records, and the answers of runs that were interrupted, go.
        limit: documents a task, from the first on; None for all.
        backend: "hf", "vllm" or "openai-server".
        base_url: of the server.
        served_model: the server's name of the model; the run's if None.
        num_concurrent: requests to the server at a time.
        batch_size: prompts answered together; with vLLM at least 64 are handed over.
        device: of a Hugging Face model.
        dtype: of the weights, in this process.
        num_frames: frames sampled from a video.
        system_prompt: words before each conversation, or the file that holds them.
        data: folder of local data sets; None for the hub and its cache.
        include_paths: folders with task files of the user's.
        resume: go on where an earlier run stopped; else all answers are asked for again.
        tokenizer: of captions, see `ScoringSettings`.
        egoschema_url: where EgoSchema's answers are scored; None for its own server.
        retention: judge as well how likely each run finds the unpruned model's answers, one forward a question.
        debug: show lmms-eval's logs and progress bars.
    """

    output: Path
    limit: int | None = None
    backend: Backend = "hf"
    base_url: str | None = None
    served_model: str | None = None
    num_concurrent: int = 16
    batch_size: int = 1
    device: str = "auto"
    dtype: str = "auto"
    num_frames: int = 8
    system_prompt: str = ""
    data: Path | None = None
    include_paths: tuple[Path, ...] = ()
    resume: bool = True
    tokenizer: CIDER_TOKENIZERS = "auto"
    egoschema_url: str | None = None
    retention: bool = False
    debug: bool = False

    @property
    def group_size(self) -> int:
        """Requests that are answered before the answers are written."""
        if self.backend == "hf":
            return self.batch_size
        return max(self.batch_size, REQUESTS_FOR_VLLM) if self.backend == "vllm" else 4 * self.num_concurrent

    @property
    def is_server(self) -> bool:
        """Whether a server answers, which was started with one method and one keep ratio."""
        return self.backend == "openai-server"

    def check(self) -> None:
        """Refuse what does not apply to the backend, and folders that are not there.

        Raises:
            ArgumentError: says which argument, and why.
        """
        for each in fields(self):
            backends = _ONLY_WITH.get(each.name, (self.backend,))
            if self.backend not in backends and getattr(self, each.name) != each.default:
                raise ArgumentError(f"`{each.name}` is for `backend` {' and '.join(backends)}, not for {self.backend}")
        if self.is_server and self.base_url is None:
            raise ArgumentError("`backend` openai-server needs `base_url`, such as http://127.0.0.1:8000/v1")
        folders = [("data", self.data), *(("include_paths", path) for path in self.include_paths)]
        for name, folder in folders:
            if folder is not None and not folder.is_dir():
                raise ArgumentError(f"`{name}` {folder}: there is no such folder")
