"""What a cache holds of a conversation whose prompt was pruned; travels with the cache from turn to turn.

*Full* indices count the conversation as the user sees it, *pruned* indices count what stands in the cache. The prompt's
L full indices became L' pruned ones; tokens after the prompt all stay, so full index L is pruned index L'.

```
                 prompt, L = 8               generated, and the next turn
full index       0    1  2  3  4  5  6  7    8  9  10 ...
ids              bos  V  V  V  V  V  how ?  two .  and ...   what the user passes, and gets back
gather_index     0    1        4     6  7                    L' = 5
pruned index     0    1        2     3  4    5  6  7  ...    what every layer's cache holds
```

A cache that holds fewer tokens than the user counts would be misread by a model that knows nothing of it: it is locked,
and only `unlocked` while a pruned model uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from divprune.errors import PruningError
from divprune.huggingface.gather_tokens import PADDING, with_later_tokens
from divprune.huggingface.layer_pruning.state import DROPPED_PROMPT
from divprune.huggingface.model_inputs import cache_in

CACHED_PROMPT = "__divprune_cached_prompt__"
"""Name under which a `CachedPrompt` hangs on the cache."""
GUARDED = ("get_mask_sizes", "update")
"""What a model asks of a cache before anything is written to it, and to write to it."""


@dataclass(frozen=True)
class CachedPrompt:
    """A prompt in a cache, together with the way it was pruned.

    Attributes:
        ids: (B, n) int64 the conversation as far as it is known, n >= L.
        attention_mask: (B, L) of the prompt.
        gather_index: (B, L') int64 full index of each token of the pruned prompt, see `gather_index_of`.
        types: token type inputs of the prompt, (B, L) each.
        positions: "compact" or "original".
        positions_given: whether the user brought the position ids.
        next_position: (B,) int64 M-RoPE coordinate of token L; None for models that count tokens.
        has_ordered_rows: whether the rows of the cache are the sequences that `generate` returned.
    """

    ids: Tensor
    attention_mask: Tensor
    gather_index: Tensor
    types: dict[str, Tensor]
    positions: str
    positions_given: bool
    next_position: Tensor | None
    has_ordered_rows: bool = True

    @property
    def length(self) -> int:
        """L, full indices of the prompt."""
        return self.attention_mask.shape[1]

    @property
    def is_pruned(self) -> bool:
        """Whether something was left out."""
        everything = torch.arange(self.length, device=self.gather_index.device)
        return self.gather_index.shape[1] != self.length or not torch.equal(
            self.gather_index, everything.expand_as(self.gather_index)
        )

    def repeated(self, num_rows: int) -> "CachedPrompt":
        """Return the same for several sequences a row.

        Raises:
            PruningError: `num_rows` is no multiple of B.
        """
        times, rest = divmod(num_rows, len(self.gather_index))
        if rest:
            raise PruningError(
                f"input_ids must hold the {len(self.gather_index)} rows of the cache, or copies of each, got {num_rows}"
            )
        if times == 1:
            return self
        later = self.next_position
        return replace(
            self,
            ids=self.ids.repeat_interleave(times, dim=0),
            attention_mask=self.attention_mask.repeat_interleave(times, dim=0),
            gather_index=self.gather_index.repeat_interleave(times, dim=0),
            types={name: value.repeat_interleave(times, dim=0) for name, value in self.types.items()},
            next_position=None if later is None else later.repeat_interleave(times, dim=0),
        )


@dataclass(frozen=True)
class Past:
    """A cached prompt and how far the cache goes now.

    Attributes:
        prompt: the prompt.
        pruned_length: indices in the cache.
    """

    prompt: CachedPrompt
    pruned_length: int

    @property
    def length(self) -> int:
        """Full indices that the cache stands for."""
        return self.prompt.length + self.pruned_length - self.prompt.gather_index.shape[1]

    @property
    def gather_index(self) -> Tensor:
        """(B, pruned_length) full index of each cached one."""
        return with_later_tokens(self.prompt.gather_index, self.prompt.length, self.pruned_length)

    def known_mask(self, num_tokens: int) -> Tensor:
        """(B, num_tokens) the prompt's attention mask, ones after it."""
        mask = self.prompt.attention_mask
        return torch.cat([mask, mask.new_ones(len(mask), num_tokens - mask.shape[1])], dim=-1)


def past_of(cache: Any, num_rows: int) -> Past | None:
    """Look up the pruned prompt in a cache; None if it is empty or was not filled by a pruned model.

    Args:
        cache: the cache, or None.
        num_rows: rows of the call that continues from it.

    Raises:
        PruningError: the cache was cut into the prompt, holds other rows, comes from beam search, or was left behind
            by a call that failed.
    """
    prompt: CachedPrompt | None = getattr(cache, CACHED_PROMPT, None)
    if prompt is None:
        return None
    length = int(cache.get_seq_length())
    if length == 0:  # the cache was reset, to be used again
        delattr(cache, CACHED_PROMPT)
        return None
    if not prompt.has_ordered_rows:
        raise PruningError(
            "the cache must not come from beam search, whose rows are not the returned sequences; pass the whole "
            "conversation with its images and without the cache"
        )
    if length < prompt.gather_index.shape[1]:
        raise PruningError(
            f"the cache must hold the whole pruned prompt of {prompt.gather_index.shape[1]} tokens, got {length}; "
            "pass the whole conversation with its images and without the cache"
        )
    past = Past(prompt.repeated(num_rows), length)
    if past.length > prompt.ids.shape[1]:
        raise PruningError(
            f"the cache must hold a conversation of at most {prompt.ids.shape[1]} tokens, got {past.length}: a "
            "call that used it was interrupted; pass the whole conversation with its images and without it"
        )
    return past


class Refusal:
    """Stands in a cache for a method that a model which knows nothing of the pruning must not call."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuses.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            "the cache holds a pruned prompt, and this model is not pruned: its input_ids would count other "
            "indices; continue inside the prune(...) block, or pass the whole conversation without the cache"
        )


def is_continued(cache: Any) -> bool:
    """Tell whether a cache holds a prompt that this module knows."""
    return hasattr(cache, CACHED_PROMPT) and int(cache.get_seq_length()) > 0


def keep_prompt(prompt: CachedPrompt, cache: Any, output: Any) -> None:
    """Hang a prompt on the cache that holds it, given or in the output, and lock it if the prompt is pruned."""
    for holder in (cache, cache_in(output) if isinstance(output, dict) else None):
        if holder is not None:
            setattr(holder, CACHED_PROMPT, prompt)
            if prompt.is_pruned:
                lock(holder)


def lock(cache: Any) -> None:
    """Let no model use a cache outside `unlocked`; its length can still be asked."""
    cache.__dict__.update({name: Refusal() for name in GUARDED})


def lock_dropped(*holders: Any) -> None:
    """Lock the caches, among some and those in some outputs, whose layers hold different parts of a prompt."""
    for holder in holders:
        cache = cache_in(holder) if isinstance(holder, dict) else holder
        if hasattr(cache, DROPPED_PROMPT):
            # A turn of text before the images counted on every layer holding the same.
            cache.__dict__.pop(CACHED_PROMPT, None)
            lock(cache)


@contextmanager
def unlocked(cache: Any) -> Iterator[None]:
    """Unlock a cache (or None) for a while; nothing of ours is called while it is in use."""
    locks = {name: value for name, value in getattr(cache, "__dict__", {}).items() if isinstance(value, Refusal)}
    for name in locks:
        del cache.__dict__[name]
    try:
        yield
    finally:
        if locks:
            cache.__dict__.update(locks)


def present_tokens(gather_index: Tensor, length: int) -> Tensor:
    """(B, length) bool: which full indices a gather_index (B, L') holds."""
    # An entry more than there are, for padding to write into.
    present = torch.zeros(len(gather_index), length + 1, dtype=torch.bool, device=gather_index.device)
    return present.scatter(-1, gather_index.masked_fill(gather_index == PADDING, length), True)[:, :-1]
