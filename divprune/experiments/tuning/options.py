"""What `divprune tune` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from divprune.budget import Budget
from divprune.config import Positions, PruningConfig
from divprune.distributed import num_processes
from divprune.errors import ArgumentError, argument_errors
from divprune.experiments.tuning.search import SEARCHED_KEEP_RATIOS
from divprune.methods import get_method


@dataclass(frozen=True)
class TuneOptions:
    """Whose traffic it is, and what is wanted.

    Attributes:
        source: A folder of images, or a JSONL file of questions, as for `divprune batch`; `answer` or `answers` (those
            that are right) are compared with where they are given.
        model: Checkpoint directory or hub name; None for the embedded model.
        output: Where the setting goes; a killed run leaves what it found beside it, and goes on from there.
        report: An HTML file to write.
        prompt: Asked where the source does not say.
        recursive: Whether a folder's subfolders are read too.
        limit: Only so many questions, drawn at random; None for all.
        methods: As `get_method` reads them; random tokens always stand beside the setting that is chosen.
        keep_ratios: Those that are searched.
        positions: As for `prune`.
        tolerance: Largest share of what images tell the model that may be lost.
        confidence: Of the promise, and of all intervals.
        target_tokens: The other way round: the least loss with at most so many visual tokens a question, on average.
        target_kv_gb: Likewise, with a prompt's keys and values of at most so many GiB.
        target_ttft: Likewise, with at most so many seconds to the first token, measured here.
        max_new_tokens: Length limit of an answer.
        cache_gb: GiB for what the vision encoder made of images.
        cache_folder: Where that is kept, also for the next run of the same model; None for memory.
        resume: Whether to go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16".
    """

    source: Path
    model: str | None = None
    output: Path = Path("tuned.json")
    report: Path | None = None
    prompt: str | None = None
    recursive: bool = False
    limit: int | None = None
    methods: tuple[str, ...] = ("divprune", "random")
    keep_ratios: tuple[float, ...] = SEARCHED_KEEP_RATIOS
    positions: Positions | None = None
    tolerance: float = 0.02
    confidence: float = 0.95
    target_tokens: float | None = None
    target_kv_gb: float | None = None
    target_ttft: float | None = None
    max_new_tokens: int = 64
    cache_gb: float = 4.0
    cache_folder: Path | None = None
    resume: bool = True
    device: str = "auto"
    dtype: str = "auto"

    @property
    def targets(self) -> dict[str, float]:
        """Those that are given."""
        named = {name: getattr(self, name) for name in ("target_tokens", "target_kv_gb", "target_ttft")}
        return {name: value for name, value in named.items() if value is not None}

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: Says which argument, and why.
        """
        for name in ("tolerance", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ArgumentError(f"`{name}` must be in (0, 1), got {getattr(self, name):g}")
        if len(self.targets) > 1:
            raise ArgumentError(f"give one target, got {' and '.join(f'`{name}`' for name in self.targets)}")
        if self.target_ttft is not None and num_processes() > 1:
            raise ArgumentError("`target_ttft` is measured, and processes would disturb each other; run one")
        if not self.methods or not self.keep_ratios:
            raise ArgumentError("`methods` and `keep_ratios` must name one at least")
        with argument_errors():
            for keep_ratio in self.keep_ratios:
                Budget(keep_ratio)
            for name in self.methods:
                if not get_method(name).takes_budget:
                    raise ArgumentError(
                        f"`methods`: {name} says itself how many tokens stay; there is nothing to search"
                    )

    @property
    def configs(self) -> list[PruningConfig]:
        """One a method."""
        with argument_errors():
            return [
                PruningConfig.parse(name, keep_ratio=self.keep_ratios[0], positions=self.positions)
                for name in self.methods
            ]
