"""What `--model_args` of lmms-eval may say of a pruned model."""

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from divprune.config import PruningConfig
from divprune.errors import EvaluationError
from divprune.evaluation.runs import UNPRUNED
from divprune.methods import get_method
from divprune.tuned_setting import load_tuned

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AUTO = "auto"
LARGEST_AUTOMATIC_BATCH = 16


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """How a model is loaded, and how it is asked. What is pruned is in `PruningArguments`.

    Attributes:
        pretrained: checkpoint directory or hub name; "embedded" for the model that comes with the package.
        revision: of the hub's checkpoint.
        dtype: "auto", "float32", "float16" or "bfloat16".
        device: "auto", "cpu", "cuda", ...
        batch_size: prompts answered together; "auto" begins with 16. Either is halved where memory is short.
        num_frames: frames sampled from a video.
        system_prompt: words before each conversation, or the file that holds them.
        max_new_tokens: longest answer where a task does not say.
    """

    pretrained: str = "embedded"
    revision: str | None = None
    dtype: str = AUTO
    device: str = AUTO
    batch_size: int | str = 1
    num_frames: int = 8
    system_prompt: str = ""
    max_new_tokens: int = 1024

    @property
    def prompts_per_batch(self) -> int:
        """The size of the first batches.

        Raises:
            EvaluationError: `batch_size` is neither "auto" nor at least 1.
        """
        if self.batch_size == AUTO:
            return LARGEST_AUTOMATIC_BATCH
        if not str(self.batch_size).isdecimal() or int(self.batch_size) < 1:
            raise EvaluationError(f"batch_size must be an integer of at least 1, or auto, got {self.batch_size!r}")
        return int(self.batch_size)


@dataclass(frozen=True, slots=True)
class PruningArguments:
    """What is pruned.

    Attributes:
        method: as `get_method` reads it, parameters separated by ";" since commas separate the arguments themselves;
            "unpruned" for all visual tokens.
        keep_ratio: fraction kept.
        num_keep: number kept.
        layer: takes the place of the method's own `layer`.
        positions: as for `prune`.
        order: as for `prune`.
        scope: as for `prune`.
        newlines: as for `prune`.
        encoder: as for `prune`, such as "tome:r=8", parameters separated as those of the method; none if not given.
        tuned: a file that `divprune tune` wrote, instead of all that.
    """

    method: str = "divprune"
    keep_ratio: float | None = None
    num_keep: int | None = None
    layer: int | None = None
    positions: str | None = None
    order: str = "sorted"
    scope: str = "item"
    newlines: str = "budget"
    encoder: str | None = None
    tuned: str | None = None

    def for_model(self, model: "PreTrainedModel") -> "PruningArguments":
        """Return what the file `tuned` stands for, or these arguments if there is none.

        Raises:
            EvaluationError: it is given beside others.
            TuningError: it cannot be read, or is of another model.
        """
        if self.tuned is None:
            return self
        if self != PruningArguments(tuned=self.tuned):
            raise EvaluationError("tuned says how to prune; leave the other arguments of pruning out")
        return PruningArguments(**load_tuned(self.tuned, model))

    def config(self) -> PruningConfig | None:
        """Return how to prune; None for all visual tokens.

        Raises:
            EvaluationError: the method has no `layer`, or a budget or an encoder option is given for all tokens.
            UnknownMethodError: there is no such method.
            ValueError: an argument or a parameter of the method is out of range.
        """
        if self.method == UNPRUNED:
            given = [name for name in ("keep_ratio", "num_keep", "layer", "encoder") if getattr(self, name) is not None]
            if given:
                raise EvaluationError(f"method=unpruned keeps all visual tokens; leave out {' and '.join(given)}")
            return None
        method = get_method(self.method.replace(";", ","))
        if self.layer is not None:
            if "layer" not in {field.name for field in dataclasses.fields(method)}:
                raise EvaluationError(f"layer does not apply: method {method.name!r} has no such parameter")
            changed: Any = {"layer": self.layer}
            method = dataclasses.replace(method, **changed)
        words: Any = {name: getattr(self, name) for name in ("scope", "order", "positions", "newlines")}
        encoder = None if self.encoder is None else self.encoder.replace(";", ",")
        budget: Any = {"keep_ratio": self.keep_ratio, "num_keep": self.num_keep}
        return PruningConfig.parse(method, **budget, **words, encoder=encoder)


def split_arguments(given: dict[str, Any]) -> tuple[ModelArguments, PruningArguments]:
    """Sort what a user named into the two kinds.

    Raises:
        EvaluationError: a name is unknown; the message says which one was perhaps meant.
    """
    names = {kind: [field.name for field in dataclasses.fields(kind)] for kind in (ModelArguments, PruningArguments)}
    everything = [name for of_kind in names.values() for name in of_kind]
    for name in given:
        if name not in everything:
            close = get_close_matches(name, everything, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise EvaluationError(f"no model argument {name!r}; there is {', '.join(everything)}{guess}")
    model, pruning = (
        kind(**{name: value for name, value in given.items() if name in names[kind]})
        for kind in (ModelArguments, PruningArguments)
    )
    return cast(ModelArguments, model), cast(PruningArguments, pruning)
