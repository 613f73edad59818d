"""The shape of a pruning method: a small frozen dataclass that says which visual tokens to keep.

image -> visual tokens -> **method.select** -> prompt -> LLM. How many is not the method's business: `divprune.budget`
decides that, and the integration asks for exactly so many. A method that names `layers` acts inside the LLM instead:
`select` then sees the hidden states that enter each of these decoder layers, and drops tokens from there on.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Paper:
    """The paper a method comes from.

    Attributes:
        title: Title of the paper.
        year: Year of publication.
        url: Where to read it.
        citation: Authors and venue, in one line.
    """

    title: str
    year: int
    url: str
    citation: str


@dataclass(frozen=True, slots=True)
class ItemContext:
    """What an integration knows about the item (one image or one video) whose tokens are pruned.

    Attributes:
        kind: What the tokens show.
        index: Number of the item within the call, from 0.
        grid: (frames, height, width) of the tokens in row-major order, or None if they do not form such a grid
            (tiles, newline tokens).
        seed: Varied by callers who want fresh random draws in each call, such as an evaluation over many samples.
        layer: The decoder layer that the tokens are about to enter; 0 before the language model.
        attention: (heads, M) float32, how much the prompt's last token attends to each of the tokens in the layer
            before `layer`, as probabilities over the whole prompt; None unless the method's `needs_attention` is set.
    """

    kind: Literal["image", "video"] = "image"
    index: int = 0
    grid: tuple[int, int, int] | None = None
    seed: int = 0
    layer: int = 0
    attention: Tensor | None = None


class Stage(NamedTuple):
    """One step of a schedule: `num_keep` of an item's tokens stay from decoder layer `layer` on."""

    layer: int
    num_keep: int


@dataclass(frozen=True)
class Method(ABC):
    """A pruning method; it acts before the language model unless it names `layers`.

    Attributes:
        name: How the command line, evaluation and serving call it.
        acts: Where it acts, in words.
        paper: The paper it comes from; None for a baseline without one.
        count: "exact" if the caller says how many tokens stay (`keep_ratio`, `num_keep`), "schedule" if the method
            does, by `schedule`.
        needs_attention: Whether `select` wants `ItemContext.attention`.
    """

    name: ClassVar[str]
    acts: ClassVar[str] = "before the language model"
    paper: ClassVar[Paper | None] = None
    count: ClassVar[Literal["exact", "schedule"]] = "exact"
    needs_attention: ClassVar[bool] = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers at whose entrance tokens are dropped, ascending from 1; empty to act before the LLM."""
        return ()

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return how many of an item's tokens stay from each of `layers` on, if `count` is "schedule".

        Args:
            num_visual_tokens: M, all tokens of the item before anything was dropped.

        Returns:
            One stage for each of `layers`; the counts never grow, and may reach zero.
        """
        raise NotImplementedError(f"method {self.name!r} has no schedule: give keep_ratio or num_keep")

    @abstractmethod
    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Choose the tokens of one item to keep.

        Args:
            visual_tokens: (M, d) floating point, after the projector; inside the LLM, the hidden states of the tokens
                that are still there, entering decoder layer `context.layer`.
            num_keep: How many to keep, between 1 and M (from 0 if the method's own schedule says so).
            context: What is known about the item.

        Returns:
            (num_keep,) int64 on the device of `visual_tokens`: distinct indices in the order they were chosen.
        """


def checked_layer(layer: int, lowest: int, name: str = "layer") -> int:
    """Return `layer` if it is an integer of at least `lowest`; errors call it `name`.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is too low.
    """
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise TypeError(f"{name} must be an integer, got {layer!r}")
    if layer < lowest:
        raise ValueError(f"{name} must be at least {lowest}, got {layer}")
    return layer
