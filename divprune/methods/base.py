"""The shape of a pruning method: a small frozen dataclass that says which visual tokens to keep.

image -> visual tokens -> **method.select** -> prompt -> LLM. How many is not the method's business: `divprune.budget`
decides that, and the integration asks for exactly so many. A method that names `layers` acts inside the LLM instead:
`select` then sees the hidden states that enter each of these decoder layers, and drops tokens from there on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

from divprune.fidelity import Fidelity as Fidelity
from divprune.methods.papers import Paper as Paper

Count = Literal["exact", "at_most", "adaptive", "schedule"]
Modality = Literal["image", "video"]
Need = str
"""Name of a field of `ItemContext`."""

QUERY_NEEDS: frozenset[Need] = frozenset(
    {"text_embeddings", "attention", "text_attention", "text_keys", "text_states", "clip_text"}
)
"""The needs that let the question have a say."""


class Piece(NamedTuple):
    """A grid of tokens in row-major order among the tokens of an item: a frame, a tile, the whole image.

    Token (row, column) is number `start + row * stride + column`; the stride is larger than the number of columns where
    a image newline token follows each row.
    """

    start: int
    rows: int
    columns: int
    stride: int


_TOKEN_AXIS = tuple({"token_axis": axis} for axis in range(3))
"""Marks a field of `ItemContext` that counts the item's tokens along an axis."""


@dataclass(frozen=True, slots=True)
class ItemContext:
    """What an integration knows about the item (one image or one video) whose tokens are pruned.

    Attributes:
        modality: What the tokens show.
        index: Number of the item within the call, from 0.
        grid: (frames, height, width) of the tokens in row-major order, or None if they do not form such a grid
            (tiles, newline tokens).
        pieces: The grids that the tokens form, one after the other, or None if they are not known.
        seed: Varied by callers who want fresh random draws in each call, such as an evaluation over many samples.
        layer: The decoder layer that the tokens are about to enter; 0 before the LLM.
        vision_attention: (heads, M) float32, how much the vision encoder's CLS token attends to the patches of each
            token in layer `Method.vision_layer`; in encoders without a CLS token, how much all patches attend to them
            on average. One head if the method sets `joins_heads`.
        vision_keys: (heads, M, d_head) float32, the keys of the same layer.
        early_vision_attention: (heads, M) float32, as `vision_attention`, in layer `Method.early_vision_layer`.
        patch_features: (M, d_vision) float32, what the projector makes the tokens from.
        clip_embeddings: (M, d_clip) float32, what the vision encoder's last layer makes of each token's patches, in the
            space of the CLIP checkpoint `Method.clip_folder`.
        clip_text: (S, d_clip) float32, segments of the text in that space.
        cls_features: (M, d_vision) float32, what the projector would make a token of the CLS token from, that of each
            token's image or tile.
        text_embeddings: (T, d) float32, the embeddings of the text after the prompt's last image (of all its text, if
            nothing follows), as the language model reads them. "The text" below is the same T tokens.
        input_tokens: (N, d) all visual tokens of the prompt as they entered the language model, dropped ones too.
        attention: (heads, M) float32, how much the prompt's last token attends to each of the tokens.
        text_attention: (heads, T, M) float32, how much each token of the text attends to each of the tokens.
        visual_attention: (heads, M) float32, how much the prompt's visual tokens that are left, those of all its
            images, attend to each of the tokens on average.
        visual_peak_attention: (M,) float32, the same with the maximum over the heads taken first, for each attending
            token, then the mean.
        keys: (key heads, M, d_head) float32, the tokens' keys in the decoder layer, after rotary embedding.
        text_keys: (key heads, T, d_head) float32, the text's.
        visual_query: (heads, d_head) float32, the mean query in the same layer of the prompt's visual tokens that are
            left, those of all its images, after rotary embedding.
        text_states: (T, d) the text's hidden states, entering `layer`.
        final_norm: (n, d) -> (n, d), the norm behind the last decoder layer.
        has_patch: (M,) bool, False at tokens that come from no patch of the image (image newline tokens), where the
            vision fields are zero. A method that reads the vision encoder never sees such tokens.
        project: (n, d_vision) -> (n, d), the model's projector, if it works on each patch alone.

    A token that stands for several patches gets their mean. Attention and keys without "vision" in their name are of
    the decoder layer before `layer`, or of `layer` itself if `Method.decoder_layer` says so; attention is given as
    probabilities over all that a token attends. What no method asks for by `Method.needs` or `Method.reads` is None.
    """

    modality: Modality = "image"
    index: int = 0
    grid: tuple[int, int, int] | None = None
    pieces: tuple[Piece, ...] | None = None
    seed: int = 0
    layer: int = 0
    vision_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    vision_keys: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    early_vision_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    patch_features: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    clip_embeddings: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    clip_text: Tensor | None = None
    cls_features: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    text_embeddings: Tensor | None = None
    input_tokens: Tensor | None = None
    attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    text_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[2])
    visual_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    visual_peak_attention: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    keys: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[1])
    text_keys: Tensor | None = None
    visual_query: Tensor | None = None
    text_states: Tensor | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None
    has_patch: Tensor | None = field(default=None, metadata=_TOKEN_AXIS[0])
    project: Callable[[Tensor], Tensor] | None = None

    def at(self, tokens: Tensor) -> "ItemContext":
        """Return the context of some tokens (k,) int64; `grid` and `pieces` stay those of the item."""
        taken: dict[str, Any] = {
            name: value.index_select(axis, tokens.to(value.device))
            for name, axis in TOKEN_AXES.items()
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **taken)

    @staticmethod
    def joined(parts: "Sequence[ItemContext]") -> "ItemContext":
        """Return the context of several items' tokens, one after the other; the rest is the first one's."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts], dim=axis)
            for name, axis in TOKEN_AXES.items()
            if getattr(parts[0], name) is not None
        }
        return replace(parts[0], **joined)


TOKEN_AXES: dict[str, int] = {
    entry.name: entry.metadata["token_axis"] for entry in fields(ItemContext) if "token_axis" in entry.metadata
}
"""For each field of `ItemContext` that holds something for every token, the axis that counts the tokens."""


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
        modalities: What it can prune; a method that compares frames takes videos alone, and refuses images.
    """

    name: ClassVar[str]
    acts: ClassVar[str] = "before the LLM"
    paper: ClassVar[Paper | None] = None
    fidelity: ClassVar[Fidelity] = "unverified"
    count: ClassVar[Count] = "exact"
    needs: ClassVar[frozenset[Need]] = frozenset()
    layer_needs: ClassVar[frozenset[Need]] = frozenset()
    reads: ClassVar[frozenset[Need]] = frozenset()
    vision_layer: ClassVar[int] = -2
    attending: ClassVar[Literal["cls", "all"]] = "cls"
    joins_heads: ClassVar[bool] = False
    calibrated_on: ClassVar[str | None] = None
    decoder_layer: ClassVar[Literal["before", "entering"]] = "before"
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "video")

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


def given(context: ItemContext, need: Need, method: str) -> Tensor:
    """Return a tensor of the context.

    Raises:
        ValueError: It is None.
    """
    value: Tensor | None = getattr(context, need)
    if value is None:
        raise ValueError(f"context.{need} must be given to method {method!r}, got None")
    return value


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
