"""What the user asked for: budget, method and rights, carried by the model's configuration from flag to worker.

`--hf-overrides '{"architectures": [...], "divprune": {"keep_ratio": 0.098}}'` ends up as `hf_config.divprune`, which
every process of the engine sees. A budget travels as two integers, because vLLM casts floats to the model's dtype.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from divprune.budget import KEEP_RATIO_STEPS, Budget
from divprune.config import Positions
from divprune.methods import Method, get_method

REQUEST_KEYS = ("keep_ratio", "num_keep")


@dataclass(frozen=True, slots=True)
class PruningSettings:
    """The "divprune" entry of hf_overrides.

    Attributes:
        keep_ratio: Fraction of each image's or video's visual tokens that is kept, in (0, 1].
        num_keep: Or their number. Exactly one of the two is given.
        method: A method and its parameters, as on the command line: "divprune", "random:seed=3".
        allow_request_ratio: Whether requests may ask for less by their mm_processor_kwargs.
        allow_untested_vllm: Whether to say nothing of a vLLM outside the tested range.
        positions: "original" lets kept tokens keep their position numbers, "compact" numbers pruned prompts anew; None
            is "original" wherever the model can.

    Raises:
        ValueError: A value is out of range, or no method has this name.
        TypeError: A value has the wrong type.
    """

    keep_ratio: float | None = None
    num_keep: int | None = None
    method: str = "divprune"
    allow_request_ratio: bool = False
    allow_untested_vllm: bool = False
    positions: Positions | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        get_method(self.method)
        Budget(self.keep_ratio, self.num_keep)
        for name in ("allow_request_ratio", "allow_untested_vllm"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.positions not in (*get_args(Positions), None):
            raise ValueError(f"positions must be one of {get_args(Positions)}, got {self.positions!r}")

    @classmethod
    def of(cls, hf_config: object) -> "PruningSettings":
        """Return the settings that a model's configuration carries.

        Raises:
            ValueError: There are none, or one of them is unknown or out of range.
        """
        given = getattr(hf_config, "divprune", None)
        if not isinstance(given, Mapping):
            raise ValueError(f'hf_overrides must have an entry "divprune": {{"keep_ratio": ...}}, got {given!r}')
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f'the "divprune" entry of hf_overrides knows {known}, got {", ".join(map(repr, unknown))}')
        return cls(**given)

    @property
    def budget(self) -> Budget:
        """The budget of an item, unless its request asks for less."""
        return Budget(self.keep_ratio, self.num_keep)

    def method_object(self) -> Method:
        """Return the method."""
        return get_method(self.method)

    def overrides(self) -> dict[str, Any]:
        """Return the entry that `of` reads."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def request_budget(self, processor_kwargs: Mapping[str, object]) -> Budget:
        """Return the budget of a request's items.

        Args:
            processor_kwargs: The request's mm_processor_kwargs; `keep_ratio` and `num_keep` are read.

        Raises:
            ValueError: The request may not ask, or asks for nonsense, of whatever type; or it asks for other things
                where requests may ask for a budget.
        """
        asked: dict[str, Any] = {name: processor_kwargs[name] for name in REQUEST_KEYS if name in processor_kwargs}
        others = sorted(set(processor_kwargs) - set(REQUEST_KEYS))
        if others and self.allow_request_ratio:
            # An image of another size than its model reads stops the engine for everybody.
            raise ValueError(
                f"a request's mm_processor_kwargs may have {' or '.join(REQUEST_KEYS)} alone, got {', '.join(others)}; "
                "other arguments are the server's own (--mm-processor-kwargs)"
            )
        if not asked:
            return self.budget
        if not self.allow_request_ratio:
            raise ValueError(
                f"{' and '.join(asked)} must not be in a request's mm_processor_kwargs: the server was started without "
                '"allow_request_ratio"'
            )
        try:
            return Budget(**asked)
        except TypeError as error:
            raise ValueError(str(error)) from None


def as_integers(budget: Budget) -> list[int]:
    """Return [keep_ratio in millionths, num_keep], with 0 for the one that is not given.

    They fit int64: no item has as many tokens as the largest, so that it keeps all of them.
    """
    return [round((budget.keep_ratio or 0) * KEEP_RATIO_STEPS), min(budget.num_keep or 0, 2**62)]


def from_integers(values: list[int]) -> Budget:
    """Return the budget that `as_integers` wrote, whatever stands after it."""
    millionths, num_keep = values[:2]
    return Budget(num_keep=num_keep) if num_keep else Budget(keep_ratio=millionths / KEEP_RATIO_STEPS)


def allowed_count(budget: Budget, server: Budget, num_visual_tokens: int) -> int:
    """Return how many of an item's tokens are kept.

    The engine has reserved room for as many as the server's own budget keeps.

    Raises:
        ValueError: The request asks for more.
    """
    count, most = budget.count(num_visual_tokens), server.count(num_visual_tokens)
    if count > most:
        raise ValueError(
            f"a request may keep what the server keeps, at most {most} of {num_visual_tokens} tokens here, got "
            f"{count}; ask for a smaller keep_ratio, or start the server with a larger one"
        )
    return count
