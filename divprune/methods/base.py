"""The shape of a pruning method: a small frozen dataclass that says which visual tokens to keep.

image -> visual tokens -> **method.select** -> prompt -> LLM. How many is not the method's business: `divprune.budget`
decides that, and the integration asks for exactly so many. A method that names `layers` acts inside the LLM instead:
`select` then sees the hidden states that enter each of these decoder layers, and drops tokens from there on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, get_args

from divprune.fidelity import Fidelity as Fidelity
from divprune.methods.item_context import ItemContext, Modality, Need
from divprune.methods.papers import Paper as Paper

if TYPE_CHECKING:
    from torch import Tensor

Count = Literal["exact", "at_most", "adaptive", "schedule"]


class Stage(NamedTuple):
    """One step of a schedule: `num_keep` of an item's tokens stay from decoder layer `layer` on."""

    layer: int
    num_keep: int


@dataclass(frozen=True)
class Method(ABC):
    """A pruning method; it acts before the LLM unless it names `layers`.

    Attributes:
        name: How the command line, evaluation and serving call it.
        acts: Where it acts, in words: "inside the LLM" beside `layers`.
        paper: The paper it comes from; None for a baseline without one.
        fidelity: How near the rule is to its paper's: "exact" if its picks were compared with the authors' public code,
            index for index; "documented" if the docstring names a deviation; "stand-in" if an input is missing that we
            cannot have, such as CLIP's text encoder or a trained scorer; "unverified" if there is nothing public to
            compare with, or nobody has since the rule was written.
        nested: Whether the picks for k tokens are the first k of those for more; see `is_nested`.
        modalities: What it works on; a method that compares the frames of a video has {"video"}.
        count: "exact" if the caller says how many tokens stay (`keep_ratio`, `num_keep`); "at_most" if that is the
            upper limit; "adaptive" if the method finds the number of each item by `adaptive_count`, unless the caller
            says one; "schedule" if the method says it for each layer, by `schedule`.
        needs: The fields of `ItemContext` that it cannot do without.
        layer_needs: Those of a method that acts both before the LLM, by `needs`, and inside it, by these.
        reads: Further fields that it reads where they are known: "grid", "pieces", "cls_features".
        vision_layer: The layer of the vision encoder that `vision_attention` and `vision_keys` come from; negative
            numbers count from the last.
        attending: Whose attention these are: "cls" for the CLS token's where there is one, "all" for the mean over all
            tokens of the encoder.
        joins_heads: Whether `vision_attention` is one softmax over the products of whole queries and keys.
        calibrated_on: Fingerprint of the one model that the method's parameters were found on, which an instance knows;
            None if it fits any.
        decoder_layer: Which decoder layer attention and keys are of: the one before each of `layers`, or the one that
            the tokens are about to enter, by its own queries and keys of all that enters it.
    """

    name: ClassVar[str]
    acts: ClassVar[str] = "before the LLM"
    paper: ClassVar[Paper | None] = None
    fidelity: ClassVar[Fidelity] = "unverified"
    nested: ClassVar[bool] = False
    modalities: ClassVar[frozenset[Modality]] = frozenset({"image", "video"})
    count: ClassVar[Count] = "exact"
    needs: ClassVar[frozenset[Need]] = frozenset()
    layer_needs: ClassVar[frozenset[Need]] = frozenset()
    reads: ClassVar[frozenset[Need]] = frozenset()
    vision_layer: ClassVar[int] = -2
    attending: ClassVar[Literal["cls", "all"]] = "cls"
    joins_heads: ClassVar[bool] = False
    calibrated_on: ClassVar[str | None] = None
    decoder_layer: ClassVar[Literal["before", "entering"]] = "before"

    def __init_subclass__(cls) -> None:
        """Refuse needs that are no field of `ItemContext`, and an unknown `fidelity`.

        Raises:
            TypeError: There is such a need, or such a word.
        """
        super().__init_subclass__()
        unknown = (cls.needs | cls.layer_needs | cls.reads) - {entry.name for entry in fields(ItemContext)}
        if unknown:
            raise TypeError(f"{cls.__name__}.needs and reads must name fields of ItemContext, got {sorted(unknown)}")
        if cls.fidelity not in get_args(Fidelity):
            choices = ", ".join(map(repr, get_args(Fidelity)))
            raise TypeError(f"{cls.__name__}.fidelity must be one of {choices}, got {cls.fidelity!r}")

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers at whose entrance tokens are dropped, ascending from 1; empty to act before the LLM.

        Attention and keys are of the layer before each: (4,) reads those of layer 3, unless `decoder_layer` says
        otherwise. A class attribute does as well. A method with a stage before the LLM and further ones inside it names
        0 first, and reads `needs` there and `layer_needs` later: (0, 20).
        """
        return ()

    def needs_at(self, layer: int) -> frozenset[Need]:
        """Return what it needs at decoder layer `layer`, 0 before the LLM."""
        return self.layer_needs if layer and self.layer_needs else self.needs

    def stages(self, num_keep: int, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return how many of an item's tokens stay where the caller says `num_keep`, for each of `layers`.

        Args:
            num_keep: between 1 and M.
            num_visual_tokens: M, all tokens of the item before anything was dropped.

        Returns:
            One stage for each of `layers`, or one at layer 0; all `num_keep`, unless a method gives it another meaning.
        """
        return tuple(Stage(layer, num_keep) for layer in self.layers or (0,))

    @property
    def early_vision_layer(self) -> int:
        """The layer that `early_vision_attention` comes from, counted as `vision_layer`; an attribute does as well."""
        return 0

    @property
    def takes_budget(self) -> bool:
        """Whether a caller may say how many tokens stay."""
        return self.count != "schedule"

    @property
    def finds_count(self) -> bool:
        """Whether the method says how many tokens stay where a caller does not."""
        return self.count in ("adaptive", "schedule")

    @property
    def is_nested(self) -> bool:
        """Whether the picks for k tokens are the first k of those for more, with these parameters."""
        return self.nested

    @property
    def may_keep_fewer(self) -> bool:
        """Whether the method may keep fewer tokens than it is asked for."""
        return self.count == "at_most"

    @property
    def clip_folder(self) -> str:
        """Folder of the CLIP checkpoint that `clip_embeddings` and `clip_text` come from; empty if it needs neither."""
        return ""

    def for_sample(self, index: int) -> Self:
        """Return the method with its seed varied, to draw anew for each sample; itself if it has no seed."""
        if "seed" not in {entry.name for entry in fields(self)}:
            return self
        changed: Any = {"seed": getattr(self, "seed", 0) * 1_000_003 + index}
        return replace(self, **changed)

    def schedule(self, num_visual_tokens: int) -> tuple[Stage, ...]:
        """Return how many of an item's tokens stay from each of `layers` on, if `count` is "schedule".

        Args:
            num_visual_tokens: M, all tokens of the item before anything was dropped.

        Returns:
            One stage for each of `layers`; the counts never grow, and may reach zero.
        """
        raise NotImplementedError(f"method {self.name!r} has no schedule: give keep_ratio or num_keep")

    def adaptive_count(self, visual_tokens: Tensor, context: ItemContext) -> int:
        """Return how many of an item's tokens (M, d) stay, at least 1, if `count` is "adaptive"."""
        raise NotImplementedError(f"method {self.name!r} has no count of its own: give keep_ratio or num_keep")

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


def require_modality(method: Method, modality: Modality) -> None:
    """Refuse an item whose modality a method does not work on.

    Raises:
        ValueError: It is of such a modality.
    """
    if modality not in method.modalities:
        works = "compares the frames of a video" if "video" in method.modalities else "is for images"
        raise ValueError(
            f"method {method.name!r} {works}, got an item of modality {modality!r}; choose a method for {modality}s "
            "(see `divprune methods`)"
        )


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
