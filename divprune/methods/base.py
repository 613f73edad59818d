"""The shape of a pruning method: a small frozen dataclass that says which visual tokens to keep.

image -> visual tokens -> **method.select** -> prompt -> LLM. How many is not the method's business: `divprune.budget`
decides that, and the integration asks for exactly so many.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

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
    """

    kind: Literal["image", "video"] = "image"
    index: int = 0
    grid: tuple[int, int, int] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Method(ABC):
    """A pruning method that acts before the language model.

    Attributes:
        name: How the command line, evaluation and serving call it.
        acts: Where it acts, in words.
        paper: The paper it comes from; None for a baseline without one.
    """

    name: ClassVar[str]
    acts: ClassVar[str] = "before the language model"
    paper: ClassVar[Paper | None] = None

    @abstractmethod
    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Choose the tokens of one item to keep.

        Args:
            visual_tokens: (M, d) floating point, after the projector.
            num_keep: How many to keep, between 1 and M.
            context: What is known about the item.

        Returns:
            (num_keep,) int64 on the device of `visual_tokens`: distinct indices in the order they were chosen.
        """
