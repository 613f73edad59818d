"""What cannot be pruned before the LLM: every refusal of this stage, once."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter

if TYPE_CHECKING:
    from divprune.huggingface.input_pruning.cache import Past

WITHOUT_CACHE = "pass the whole conversation with its images and without the cache"


def require_no_placeholders(adapter: ModelAdapter, input_ids: Tensor) -> None:
    """Refuse ids (B, n) with placeholders in a call that brings no images.

    Raises:
        PruningError: there are placeholders.
    """
    for modality in adapter.family.modalities:
        token_id = adapter.placeholder_id(modality)
        count = int((input_ids == token_id).sum())
        if count:
            raise PruningError(
                f"images must come with their placeholders: input_ids hold {count} new {modality} placeholders (id "
                f"{token_id}), and the call brings no pixels; pass all that the model's processor returns"
            )


def require_empty_cache(cache: Any) -> None:
    """Refuse images on a cache that this pruned model did not fill.

    Raises:
        PruningError: the cache holds tokens.
    """
    if cache.get_seq_length() > 0:
        raise PruningError(
            "the cache must be empty when images come in, or hold earlier turns of this pruned model: got a "
            f"cache of {cache.get_seq_length()} tokens; pass the whole conversation without the cache"
        )


def require_placeable_padding(adapter: ModelAdapter, new_mask: Tensor) -> None:
    """Refuse padding between cache and new tokens where it would be counted, or carried along.

    Args:
        adapter: the model.
        new_mask: (B, n) attention mask of the tokens that the cache does not hold.

    Raises:
        PruningError: there is such padding, and layers with a sliding window, linear attention or a convolution, or a
            `generate` that counts positions by token index.
    """
    text = adapter.text_config
    types = getattr(text, "layer_types", None) or ()
    if not types and getattr(text, "sliding_window", None) is not None:  # as transformers infers it
        types = ("sliding_attention",)
    reasons = [f"layers of type {name}" for name in sorted(set(types) - {"full_attention"})]
    if not adapter.family.takes_positions:
        reasons.append("a generate() that counts it as positions")
    if reasons and not bool(new_mask.all()):
        raise PruningError(
            "on a kept cache all rows of a batch must grow by equally many tokens, dropped ones not counted: this "
            f"model has {', '.join(reasons)}, which padding between two turns may change; {WITHOUT_CACHE}"
        )


def require_placeable_images(adapter: ModelAdapter, new_ids: Tensor) -> None:
    """Refuse new images on a kept cache of a family that cannot place them there.

    Args:
        adapter: the model.
        new_ids: (B, n) ids that the cache does not hold.

    Raises:
        PruningError: there are placeholders among them.
    """
    reason = adapter.family.fresh_images_only
    if reason and bool(adapter.placeholder_mask(new_ids).any()):
        raise PruningError(
            f"the cache must be empty when images come in for {adapter.family.name!r}: {reason}; {WITHOUT_CACHE}"
        )


def require_typed_blocks(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> None:
    """Refuse new images on a kept cache where the model would look for them at the wrong token indices.

    Gemma 3 lets the tokens of an image see each other both ways and finds them by `token_type_ids` over the whole
    conversation; before transformers 5.23 `generate` hands it those of the new tokens only.

    Args:
        adapter: the model.
        inputs: of the call on the pruned prompt.

    Raises:
        PruningError: this transformers does.
    """
    types = inputs.get("token_type_ids")
    if not adapter.family.has_typed_blocks or types is None:
        return
    prepare = cast(Callable[..., dict[str, Tensor]], adapter.model.prepare_inputs_for_generation)
    prepared = prepare(inputs["input_ids"], next_sequence_length=1, token_type_ids=types, is_first_iteration=True)
    if prepared["token_type_ids"].shape != types.shape:
        raise PruningError(
            "the cache must be empty when images come in: this version of transformers places the images of "
            f"{adapter.family.name!r} wrongly on a kept cache, pruned or not; update it, or pass the whole "
            "conversation without the cache"
        )


def has_gaps(position_ids: Tensor | None) -> bool:
    """Tell whether positions that count tokens, (B, n), leave numbers out; coordinates have none."""
    return position_ids is not None and position_ids.ndim == 2 and bool((position_ids.diff(dim=-1) != 1).any())


def require_unpacked_positions(adapter: ModelAdapter, position_ids: Tensor | None) -> None:
    """Refuse positions with gaps that flash attention would read as borders between packed sequences.

    Args:
        adapter: the model.
        position_ids: (..., B, n) of the tokens that the cache does not hold; None where the model counts.

    Raises:
        PruningError: it uses flash attention, and they do not begin with 0, where it would see that they are one.
    """
    if adapter.has_flash_attention and has_gaps(position_ids) and bool(cast(Tensor, position_ids)[:, :1].any()):
        raise PruningError(
            "positions must be 'compact' for these tokens under flash attention, which reads gaps in the position ids "
            "as borders between sequences; or attend by sdpa"
        )


def require_same_conversation(ids: Tensor, mask: Tensor, past: "Past") -> None:
    """Refuse a conversation (B, L) that does not begin with what the cache holds.

    Raises:
        PruningError: other ids, or other padding.
    """
    known = past.prompt.ids[:, : past.length].to(ids.device)
    same = (ids[:, : known.shape[1]] == known) | (mask[:, : known.shape[1]] == 0)
    old_mask = past.prompt.attention_mask.to(mask.device).bool()
    padded_alike = bool((mask[:, : old_mask.shape[1]].bool() == old_mask).all())
    if not (padded_alike and bool(same.all())):
        raise PruningError(
            f"input_ids must begin with the {past.length} tokens that the cache holds, padded as they were; got "
            "another conversation, or the new tokens alone without the attention_mask of the whole conversation"
        )


def require_same_kind_of_positions(given: Tensor | None, past: "Past") -> None:
    """Refuse position ids, or their absence, where the turns before did otherwise.

    Raises:
        PruningError: the turns before had position ids of another kind.
    """
    prompt = past.prompt
    if (given is not None) != prompt.positions_given and (prompt.positions == "compact" or given is None):
        raise PruningError(
            f"position_ids must {'' if given is None else 'not '}be given: the cache was filled "
            f"with{'out' if given is not None else ''} them"
        )


def require_integer_on_a_kept_cache(name: str, past: "Past | None") -> None:
    """Refuse indices of the prompt in a call that goes on from a kept cache.

    Raises:
        PruningError: there is a kept cache.
    """
    if past is not None:
        raise PruningError(f"{name} must be an integer on a kept cache, got a tensor: say how many of the last logits")
