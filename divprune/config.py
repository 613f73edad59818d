"""How to prune, as one checked value: which method, how many tokens, what shares a budget, in which order, and where.

image -> visual tokens -> selection -> prompt -> LLM: every integration turns its own arguments into a `PruningConfig`,
once, and asks it instead of the method how many tokens stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, cast, get_args

from divprune.budget import DEFAULT_KEEP_RATIO, Budget
from divprune.encoder_options import EncoderOption, encoder_option
from divprune.methods.base import Method
from divprune.methods.item_context import Modality
from divprune.methods.registry import get_method

Scope = Literal["item", "frame", "tile", "sample"]
Newlines = Literal["budget", "keep", "rows"]
Order = Literal["sorted", "selection"]
Positions = Literal["compact", "original"]
KeepRatioLike = float | Mapping[Modality, float] | Sequence[float]

_CHOICES = {
    "scope": get_args(Scope),
    "newlines": get_args(Newlines),
    "order": get_args(Order),
    "positions": (*get_args(Positions), None),
}


def require_scope(scope: Scope, modality: Modality) -> None:
    """Refuse a scope that an item of a modality does not have.

    Raises:
        ValueError: it is "tile" for a video.
    """
    if scope == "tile" and modality == "video":
        raise ValueError("scope must be 'frame', 'item' or 'sample' for a video, got 'tile': its frames are not cut")


@dataclass(frozen=True)
class PruningConfig:
    """How a model is pruned; `PruningConfig.parse` also takes a method by name.

    Attributes:
        method: Which tokens.
        keep_ratio: Fraction of the visual tokens kept, in (0, 1]; k = max(1, round(keep_ratio * M)). Or one by
            modality, {"image": 0.2, "video": 0.05} (another one stays whole), or one for each item of a call, in the
            order of the prompts.
        num_keep: Number of visual tokens kept, at least 1; items with fewer tokens keep all. With neither of the two,
            the method decides, or 0.098 of them are kept, as in the paper.
        scope: What shares one budget: each "item" (one image with all its tiles, one video), each "frame" of a video,
            each "tile" of an image, or the whole "sample" (all items of a row). Each frame or tile keeps `num_keep`;
            under "tile" a `keep_ratio` is of the image, and what it keeps is dealt out to its tiles in equal numbers,
            the remainder to the first.
        newlines: What becomes of image newline tokens: "budget" treats them as any other token; "keep" keeps them all
            and "rows" those whose row keeps a token, in both cases on top of `keep_ratio` or `num_keep`, which then
            count the other tokens alone.
        order: "sorted" feeds the kept tokens in their original order, "selection" in the order they were picked.
        positions: "original" keeps each token's own position, "compact" numbers the pruned prompt 0..n'-1 as the
            paper's code does; None is "original" wherever the family takes position ids.
        encoder: A way to encode less, before tokens are selected: M above is then what it leaves of an item's tokens.

    Raises:
        ValueError: A value is out of range, both numbers are given, or one to a method that decides its own count.
        TypeError: `method`, `keep_ratio` or `num_keep` has the wrong type.
    """

    method: Method
    keep_ratio: KeepRatioLike | None = None
    num_keep: int | None = None
    scope: Scope = "item"
    order: Order = "sorted"
    positions: Positions | None = None
    newlines: Newlines = "budget"
    encoder: EncoderOption | None = None

    def __post_init__(self) -> None:
        """Check the fields, and fill in the paper's keep ratio where nothing says how many tokens stay."""
        if not isinstance(self.method, Method):
            raise TypeError(f"method must be a Method or the name of one, such as 'divprune', got {self.method!r}")
        if self.encoder is not None and not isinstance(self.encoder, EncoderOption):
            raise TypeError(f"encoder must be an option such as 'tome:r=8', or None, got {self.encoder!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                choices = ", ".join(repr(each) for each in allowed if each is not None)
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if self.keep_ratio is None and self.num_keep is None:
            if not self.method.finds_count:
                object.__setattr__(self, "keep_ratio", DEFAULT_KEEP_RATIO)
        elif self.method.count == "schedule":
            raise ValueError(
                f"`keep_ratio` and `num_keep` must be left out with {self.method.name!r}, which says itself how many "
                f"tokens stay, got {self.keep_ratio} and {self.num_keep}"
            )
        if self.is_uniform:
            _ = self.budget
        else:
            self._check_several()

    @classmethod
    def parse(cls, method: "Method | str | PruningConfig", **values: Any) -> "PruningConfig":
        """Make a config of a method or its name, such as "random:seed=3", and the other fields; return a whole one.

        `encoder` may be named too, such as "tome:r=8".

        Raises:
            UnknownMethodError: No method has this name.
            ValueError: Fields are given beside a whole config.
        """
        if not isinstance(method, PruningConfig):
            if isinstance(values.get("encoder"), str):
                values["encoder"] = encoder_option(values["encoder"])
            return cls(get_method(method) if isinstance(method, str) else method, **values)
        given = {name: value for name, value in values.items() if value != cls.__dataclass_fields__[name].default}
        if given:
            raise ValueError(f"{', '.join(given)} must be fields of the PruningConfig, not given beside it")
        return method

    @cached_property
    def is_uniform(self) -> bool:
        """Whether one budget is given to every item, or none."""
        return not isinstance(self.keep_ratio, (Mapping, list, tuple))

    @cached_property
    def budget(self) -> Budget | None:
        """How many tokens stay of every item; None if the method decides."""
        keep_ratio: Any = self.keep_ratio
        return None if keep_ratio is None and self.num_keep is None else Budget(keep_ratio, self.num_keep)

    def budgets(self, modalities: Sequence[Modality]) -> list[Budget | None]:
        """Return how many tokens stay of each item of a call, in the order of the prompts.

        Raises:
            ValueError: There is one keep ratio for each item, and not as many as items.
        """
        ratios = self.keep_ratio
        if isinstance(ratios, Mapping):
            return [Budget(ratios.get(modality, 1.0)) for modality in modalities]
        if self.is_uniform:
            return [self.budget] * len(modalities)
        several = cast(Sequence[float], ratios)
        if len(several) != len(modalities):
            raise ValueError(f"keep_ratio must have one entry an item, {len(modalities)} here, got {len(several)}")
        return [Budget(ratio) for ratio in several]

    def _check_several(self) -> None:
        several = cast("Mapping[Modality, float] | Sequence[float]", self.keep_ratio)
        ratios = several.values() if isinstance(several, Mapping) else several
        known = not isinstance(several, Mapping) or set(several) <= set(get_args(Modality))
        if not several or not known:
            raise ValueError(
                f"keep_ratio must be a fraction, or some by 'image' and 'video' or by item, got {several!r}"
            )
        if self.num_keep is not None or self.scope == "sample":
            raise ValueError("keep_ratio must be one number beside num_keep and with scope='sample'")
        for ratio in ratios:
            Budget(ratio)

    def for_sample(self, index: int) -> Self:
        """Return the config with the seed of its method varied, to draw anew for each sample."""
        return replace(self, method=self.method.for_sample(index))
