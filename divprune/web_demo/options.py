"""What the web demo is asked for, checked before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path

from divprune.budget import DEFAULT_KEEP_RATIO, Budget
from divprune.errors import ArgumentError, argument_errors

PAGE_METHODS = ("divprune", "random")
"""Methods A and B, where nobody says which."""
RATIO_STEPS = 500
"""The slider's keep ratios are multiples of 1 / 500, so that the paper's 0.098 is one."""
EXPORTED_METHODS = ("divprune", "random", "uniform", "cls-attention", "visionzip", "fastv")
EXPORTED_RATIOS = (0.02, 0.05, DEFAULT_KEEP_RATIO, 0.2, 0.4)


@dataclass(frozen=True)
class ModelOptions:
    """The model of a demo.

    Attributes:
        model: checkpoint directory or hub name; None for the embedded model.
        max_new_tokens: length limit of an answer.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16".
    """

    model: str | None = None
    max_new_tokens: int = 64
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class WebDemoOptions(ModelOptions):
    """A page with a model behind it.

    Attributes:
        methods: A and B, which the page begins with.
        keep_ratio: where its slider begins.
        num_frames: sampled from each video.
        host: address that it listens on.
        port: the TCP port.
    """

    methods: tuple[str, ...] = PAGE_METHODS
    keep_ratio: float = DEFAULT_KEEP_RATIO
    num_frames: int = 8
    host: str = "127.0.0.1"
    port: int = 7860

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: says which argument, and why.
        """
        if len(self.methods) != len(PAGE_METHODS):
            raise ArgumentError(f"`methods` must be two for the page, A and B, got {' '.join(self.methods) or 'none'}")
        with argument_errors():
            Budget(self.keep_ratio)
        if round(self.keep_ratio * RATIO_STEPS, 9) % 1:
            raise ArgumentError(
                f"`keep_ratio` must be in steps of {1 / RATIO_STEPS:g} for the page, got {self.keep_ratio}"
            )
        if not 0 < self.port < 2**16:
            raise ArgumentError(f"`port` must be between 1 and 65535, got {self.port}")


@dataclass(frozen=True)
class ExportOptions(ModelOptions):
    """The demo as files, with answers that are there already.

    Attributes:
        folder: where they go; a new one, an empty one, or that of an earlier export, which is replaced.
        methods: which methods are shown.
        keep_ratios: at which keep ratios.
        prompts: asked about every scene; by default each has its own questions, with known answers.
    """

    folder: Path = Path("divprune-demo")
    methods: tuple[str, ...] = EXPORTED_METHODS
    keep_ratios: tuple[float, ...] = EXPORTED_RATIOS
    prompts: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot work; nothing is written.

        Raises:
            ArgumentError: says which argument, and why.
        """
        for name in ("methods", "keep_ratios"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ArgumentError(f"`{name}` must be at least one, and each once, got {values}")
        if any(not prompt.strip() for prompt in self.prompts):
            raise ArgumentError("`prompts` is empty; ask something, or leave it out")
        with argument_errors():
            for keep_ratio in self.keep_ratios:
                Budget(keep_ratio)
