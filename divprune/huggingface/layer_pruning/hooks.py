"""Dropping tokens at decoder layer K: hooks that stand before the layers from K on, for one call.

Embedding, masks, positions and caches are made by the model at full length. At the entrance of layer K the hidden
states of the dropped tokens are left out, and every layer from there on gets its mask, positions and rotary embeddings
cut to match. So layers 0 to K - 1 cache the full prompt and the later ones a shorter one; later calls on that cache cut
the masks again.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from divprune.errors import PruningError
from divprune.huggingface.cache_names import cache_in
from divprune.huggingface.gather import (
    causal_mask,
    shifted,
    slots_of,
    take_mask,
    take_tokens,
    take_visual,
    with_later_columns,
)
from divprune.huggingface.layer_pruning.chooser import Chooser
from divprune.huggingface.layer_pruning.decoder_capture import Heard, LayerProbe
from divprune.huggingface.layer_pruning.full_masks import sized_at_full_length, sizes_in_cache
from divprune.huggingface.layer_pruning.state import DROPPED_PROMPT, DroppedPrompt
from divprune.huggingface.replacing import replaced

DEEPSTACK = "_deepstack_process"
"""Name of the language model's method that adds visual features behind its first layers (Qwen3-VL)."""


class DroppingHooks:
    """The hooks of one call of `generate` or `forward`."""

    def __init__(self, decoder: nn.Module, prompt: DroppedPrompt, choose: Chooser | None = None) -> None:
        """Prepares the hooks; `installed` puts them in place.

        Args:
            decoder: the language model, whose `layers` are the decoder layers.
            prompt: what was dropped, or where to drop.
            choose: which columns stay; not needed if that is decided.
        """
        self._decoder = decoder
        self._layers = cast(nn.ModuleList, decoder.layers)
        self._names = [list(inspect.signature(layer.forward).parameters) for layer in self._layers]
        self._prompt = prompt
        self._choose = choose
        self._asked = None if choose is None else choose.asked
        self._probe: LayerProbe | None = None
        self._undo = ExitStack()
        self._sized: Any = None
        self._begin_pass()

    @contextmanager
    def installed(self, cache: Any = None) -> Iterator[None]:
        """Hooks in place; afterwards, whatever happened, the model is as before.

        Args:
            cache: the cache that the call continues from, if any.
        """
        with self._undo:
            self._undo.callback(self._stop_probe)
            self._undo.callback(self._begin_pass)
            self._hook(0, lambda *_: self._begin_pass())
            for index in range(self._prompt.layers[0], len(self._layers)):
                self._hook(index, self._cutter(index))
            for stage, index in enumerate(self._prompt.layers if self._asked else (), start=1):
                self._hook(index - 1, self._listener(stage, index - 1))
            if hasattr(self._decoder, DEEPSTACK):
                self._undo.enter_context(replaced(self._decoder, DEEPSTACK, self._deepstack))
            if cache is not None:
                self._size_masks(cache)
            yield

    def _hook(self, index: int, hook: Callable[..., Any]) -> None:
        handle = self._layers[index].register_forward_pre_hook(hook, with_kwargs=True)
        self._undo.callback(handle.remove)

    def _size_masks(self, cache: Any) -> None:
        if cache is not self._sized:
            self._sized = cache
            self._undo.enter_context(sized_at_full_length(cache, self._prompt))

    def _begin_pass(self) -> None:
        self._cuts: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._queries: Tensor | None = None
        self._spans = False
        self._total = 0

    def _inputs(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self._names[index], args, strict=False)) | kwargs

    def _cutter(self, index: int) -> Callable[..., Any]:
        def cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            inputs = self._inputs(index, args, kwargs)
            hidden = inputs.pop("hidden_states")
            hidden = self._entering(index, hidden, cache_in(inputs))
            return (hidden,), self._cut(index, hidden, inputs)

        return cut

    def _listener(self, stage: int, index: int) -> Callable[..., None]:
        def listen(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._asked is None or len(self._prompt.sources) != stage:
                return
            inputs = self._inputs(index, args, kwargs)
            num_queries = inputs["hidden_states"].shape[1]
            _, offset, cached = sizes_in_cache(cache_in(inputs), index, num_queries)
            slots = slots_of(self._prompt.sources[stage - 1], self._prompt.length)
            self._probe = LayerProbe(layer.self_attn, self._asked.at(slots), cached - offset)

        return listen

    def _stop_probe(self) -> Heard:
        probe, self._probe = self._probe, None
        if probe is None:
            return {}
        probe.stop()
        return probe.heard

    def _entering(self, index: int, hidden: Tensor, cache: Any) -> Tensor:
        """Hidden states as layer `index` gets them; the dropped ones left out where it is one that drops."""
        prompt, stage = self._prompt, self._prompt.stage_of(index)
        if index == prompt.layers[0]:
            # A pass without a cache brings the prompt again and again; else only the first one does.
            self._spans = cache is None or not prompt.is_decided
            self._total = self._columns_so_far(index, hidden, cache)
        if not self._spans or index != prompt.layers[stage - 1]:
            return hidden
        slots = slots_of(prompt.sources[stage - 1], prompt.length)
        if len(prompt.sources) == stage:
            prompt.add(self._chosen(index, hidden, slots))
            if cache is not None:
                setattr(cache, DROPPED_PROMPT, prompt)
        if self._choose is not None:
            hidden = self._choose.merged(index, hidden, slots)
        return take_tokens(hidden, self._staying(stage, slots, hidden), has_features=True)

    def _columns_so_far(self, index: int, hidden: Tensor, cache: Any) -> int:
        """Full columns behind this pass, which enters the first dropping layer `index`."""
        if self._spans:
            return self._prompt.start + hidden.shape[1]
        return int(cache.get_seq_length(index)) + self._prompt.dropped(index) + hidden.shape[1]

    def _chosen(self, index: int, hidden: Tensor, slots: Tensor) -> Tensor:
        heard = self._stop_probe()
        if self._choose is None or hidden.shape[1] < int(slots.max()) + 1:
            raise PruningError("the whole prompt must pass the model at once while tokens are dropped inside it")
        return self._choose(index, hidden[:: self._prompt.copies(len(hidden))], slots, heard)

    def _staying(self, stage: int, slots: Tensor, hidden: Tensor) -> Tensor:
        """(rows, n') columns of `hidden` (rows, n, d) that stay when this stage begins."""
        source, num_before = self._prompt.sources[stage], self._prompt.sources[stage - 1].shape[1]
        staying = take_tokens(slots, source, has_features=False).masked_fill(source < 0, -1)
        num_later = hidden.shape[1] - num_before
        staying = with_later_columns(staying, num_before, source.shape[1] + num_later)
        return staying.repeat_interleave(self._prompt.copies(len(hidden)), dim=0)

    def _cut(self, index: int, hidden: Tensor, inputs: dict[str, Any]) -> dict[str, Any]:
        """The other inputs of layer `index`, cut to fit `hidden` (rows, q, d)."""
        prompt, stage, num_queries = self._prompt, self._prompt.stage_of(index), hidden.shape[1]
        if cache_in(inputs) is not None:
            self._size_masks(cache_in(inputs))
        keys, first = self._keys_of(index, hidden, cache_in(inputs))
        queries = keys[:, first : first + num_queries]
        # Counted from the pass's first token, where they stand in what it brings.
        self._queries = shifted(queries, prompt.start) if self._spans else None
        place = (stage, first, keys.shape[1])
        mask = inputs.get("attention_mask")
        if mask is not None:
            cut = partial(_mask, mask, self._queries, keys, self._total)
            inputs["attention_mask"] = self._once("mask", mask, place, cut)
        elif prompt.ragged[stage]:
            inputs["attention_mask"] = self._once("mask", mask, place, partial(causal_mask, queries, keys, hidden))
        if self._queries is None:
            return inputs
        num_full = self._total - prompt.start
        return {
            name: self._once(name, value, place, partial(_per_token, name, value, self._queries, num_full))
            for name, value in inputs.items()
        }

    def _keys_of(self, index: int, hidden: Tensor, cache: Any) -> tuple[Tensor, int]:
        """(rows, n) full columns of the keys that layer `index` will see, and which of them is the first query."""
        num_rows, num_queries = hidden.shape[:2]
        # As wide as the keys will be: a static cache returns all its slots.
        num_keys, offset, cached = sizes_in_cache(cache, index, num_queries)
        stage = self._prompt.stage_of(index)
        columns = self._once(
            "keys",
            None,
            (stage, offset, num_keys),
            lambda: self._prompt.columns(stage, num_rows, offset + num_keys)[:, offset:],
        )
        return columns, cached - offset

    def _once(self, name: str, value: Any, place: tuple[int, ...], make: Callable[[], Any]) -> Any:
        """`make()`, done once in a pass for all layers that get the same `value` at the same place."""
        key = (name, id(value), *place)
        if key not in self._cuts:
            self._cuts[key] = (make(), value)  # the value too, so that its id is not given to another
        return self._cuts[key][0]

    def _deepstack(self, add: Callable[..., Any], hidden: Tensor, visual_pos_masks: Tensor, features: Tensor) -> Any:
        """Adds visual features behind a layer; those of tokens that are gone are left out."""
        if self._queries is not None:
            visual_pos_masks, features = take_visual(visual_pos_masks, features, self._queries)
        return add(hidden, visual_pos_masks, features)


def _mask(mask: Any, queries: Tensor | None, keys: Tensor, total: int) -> Tensor:
    """A layer's mask at the columns that are left; at full length it ends behind column `total`, or further."""
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        raise PruningError(
            "attn_implementation must be 'sdpa' or 'eager' while tokens are dropped inside the model: got an attention "
            f"mask of shape {tuple(mask.shape)}, which cannot be cut"
        )
    return take_mask(mask, queries, shifted(keys, max(total - mask.shape[-1], 0)))


def _per_token(name: str, value: Any, queries: Tensor, num_full: int) -> Any:
    """An input of a decoder layer at the columns `queries` (rows, q), if it holds something for each token."""
    if name == "attention_mask":
        return value
    if name == "position_ids" and value is not None:
        return take_tokens(value, queries, has_features=False)
    if name == "position_embeddings" and value is not None:
        return tuple(take_tokens(part, queries, has_features=True) for part in value)
    if name == "per_layer_input" and value is not None:
        return take_tokens(value, queries, has_features=True)
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == num_full:
        raise PruningError(f"tokens cannot be dropped inside this model: its layers take {name!r} for each token")
    return value
