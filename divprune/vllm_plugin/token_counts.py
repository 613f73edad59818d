"""What became of a request's visual tokens, told by the processor to whoever asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_listening: ContextVar[list["ItemCount"] | None] = ContextVar("divprune_token_counts", default=None)


@dataclass(frozen=True, slots=True)
class ItemCount:
    """An image or video of a prompt.

    Attributes:
        modality: "image" or "video".
        num_visual_tokens: How many tokens it has, M.
        num_kept: How many of them the language model reads, k.
    """

    modality: str
    num_visual_tokens: int
    num_kept: int


@contextmanager
def counted_items() -> Iterator[list[ItemCount]]:
    """Collect the items of all prompts that are processed in this context, until the block ends."""
    items: list[ItemCount] = []
    token = _listening.set(items)
    try:
        yield items
    finally:
        _listening.reset(token)


def count_item(item: ItemCount) -> None:
    """Add an item, if anybody wants to know."""
    items = _listening.get()
    if items is not None:
        items.append(item)
