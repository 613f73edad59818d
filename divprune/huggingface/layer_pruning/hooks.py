"""Dropping tokens at decoder layer K: hooks that stand before the layers from K on, for one call.

Embedding, masks, positions and caches are made by the model at full length. At the entrance of layer K the hidden
states of the dropped tokens are left out, and every layer from there on gets its mask, positions and rotary embeddings
cut to match; later calls on that cache cut the masks again.

```
K = 2            prompt of the turn                    generated
layers 0, 1      bos  V  V  V  V  V  V  how many ?     two .       stage 0: all tokens, all cached
layer 2          ---- select_items: V V V stay ----                hidden states of the others end here
layers 2, 3      bos  V        V     V  how many ?     two .       stage 1: `gather_indices[1]` says which are left
cache length     layer 0: 12   layer 2: 9                          masks are made for 12, and cut to 9 keys
position         0    1        4     6  7   8    9     10  11      original: what went through layers 0 and 1 keeps them
```

The hooks of one pass; those of the decoding steps do the same without `_dropped`:

```
layer 0          _begin_pass       forget what was cut for the pass before
layer K - 1      _start_capture    in the prefill, if the method reads attention or keys of the decoder layer before
layer K          _enter            _dropped: end the capture (or capture of this layer, `_captured_entering`), select,
                                   shorten the hidden states; _cut: all else alike
layers > K       _enter            _cut
```

A mask, or anything else with one entry a token, that enters a layer of stage s is gathered at the full token indices of
its queries and keys: `DroppedPrompt.indices(s, ...)`.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from divprune.errors import PruningError
from divprune.huggingface.gather_tokens import (
    causal_mask,
    gather_features,
    gather_mask,
    gather_visual,
    pruned_index_of,
    shifted,
    with_later_tokens,
)
from divprune.huggingface.layer_pruning.decoder_capture import CapturedLayer, DecoderCapture, Requested
from divprune.huggingface.layer_pruning.entering_capture import captured_on_entering, set_aside
from divprune.huggingface.layer_pruning.layer_selection import LayerSelector
from divprune.huggingface.layer_pruning.state import (
    DROPPED_PROMPT,
    DroppedPrompt,
    sized_at_full_length,
    sizes_in_cache,
)
from divprune.huggingface.model_inputs import cache_name
from divprune.huggingface.wrapping import replaced

DEEPSTACK = "_deepstack_process"
"""Name of the LLM's method that adds visual features behind its first layers (Qwen3-VL)."""


class DroppingHooks:
    """The hooks of one call of `generate` or `forward`."""

    def __init__(self, decoder: nn.Module, prompt: DroppedPrompt, selector: LayerSelector | None = None) -> None:
        """Prepare the hooks; `installed` puts them in place.

        Args:
            decoder: the LLM, whose `layers` are the decoder layers.
            prompt: what was dropped, or where to drop.
            selector: which tokens stay; not needed if that is decided.
        """
        self._decoder = decoder
        self._layers = cast(nn.ModuleList, decoder.layers)
        self._names = [list(inspect.signature(layer.forward).parameters) for layer in self._layers]
        self._cache_name = cache_name(self._names[0])
        self._prompt = prompt
        self._selector = selector
        self._capture: DecoderCapture | None = None
        self._undo = ExitStack()
        self._sized: Any = None
        self._begin_pass()

    @contextmanager
    def installed(self, cache: Any = None) -> Iterator[None]:
        """Put the hooks in place; afterwards, whatever happened, the model is as before.

        Args:
            cache: the cache that the call continues from, if any.
        """
        layers = self._prompt.layers
        requested = None if self._selector is None else self._selector.requested
        captures_before = requested is not None and not requested.entering
        with self._undo:
            self._undo.callback(self._stop_capture)
            self._undo.callback(self._begin_pass)
            self._hook(0, lambda *_: self._begin_pass())
            for index in range(layers[0], len(self._layers)):
                stage = sum(layer <= index for layer in layers)
                self._hook(index, partial(self._enter, index, stage))
            for stage, index in enumerate(layers if captures_before else (), start=1):
                if index == 0:
                    continue  # no layer before it could be captured
                self._hook(index - 1, partial(self._start_capture, index - 1, stage))
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
        # What was cut for one layer of the pass serves all that get the same.
        self._cuts: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        # Indices of the pass's tokens, counted from `prompt.start`; None where it brings nothing of the prompt.
        self._queries: Tensor | None = None
        # Whether the pass brings the prompt, and the full index at which it ends.
        self._spans = False
        self._total = 0

    def _inputs(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self._names[index], args, strict=False)) | kwargs

    def _enter(self, index: int, stage: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Cut what enters layer `index`, which is of `stage`; drop tokens where the stage begins."""
        inputs = self._inputs(index, args, kwargs)
        hidden, prompt = inputs.pop("hidden_states"), self._prompt
        cache: Any = inputs.get(self._cache_name)
        if index == prompt.layers[0]:
            # A pass without a cache brings the prompt again and again; else only the first one does.
            self._spans = cache is None or len(prompt.gather_indices) <= len(prompt.layers)
            self._total = prompt.start if self._spans else int(cache.get_seq_length(index)) + prompt.dropped(index)
            self._total += hidden.shape[1]
        if self._spans and index == prompt.layers[stage - 1]:
            hidden = self._dropped(index, stage, hidden, cache, inputs)
        return (hidden,), self._cut(prompt, index, stage, hidden, cache, inputs)

    def _start_capture(self, index: int, stage: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Capture what the method requested of layer `index`, the last one before `stage`, while it runs."""
        prompt = self._prompt
        if self._selector is None or self._selector.requested is None or len(prompt.gather_indices) != stage:
            return
        inputs = self._inputs(index, args, kwargs)
        num_queries = inputs["hidden_states"].shape[1]
        _, offset, cached = sizes_in_cache(inputs.get(self._cache_name), index, num_queries)
        pruned_index = pruned_index_of(prompt.gather_indices[stage - 1], prompt.length)
        self._capture = DecoderCapture(layer.self_attn, self._selector.requested.at(pruned_index), cached - offset)

    def _stop_capture(self) -> CapturedLayer:
        capture, self._capture = self._capture, None
        if capture is None:
            return {}
        capture.stop()
        return capture.captured

    def _captured_entering(
        self, requested: Requested, index: int, stage: int, hidden: Tensor, cache: Any, inputs: dict[str, Any]
    ) -> CapturedLayer:
        """Capture what the method requested of layer `index` itself, of all the `hidden` states that are left."""
        # What is cut here serves no other layer.
        cuts, self._cuts = self._cuts, {}
        cut = self._cut(self._prompt.entering(stage), index, stage - 1, hidden, cache, dict(inputs))
        self._cuts = cuts
        cut |= {"hidden_states": hidden, self._cache_name: set_aside(cache, index)}
        pruned_index = pruned_index_of(self._prompt.gather_indices[stage - 1], self._prompt.length)
        _, offset, cached = sizes_in_cache(cache, index, hidden.shape[1])
        return captured_on_entering(self._layers[index], requested.at(pruned_index), cached - offset, cut)

    def _dropped(self, index: int, stage: int, hidden: Tensor, cache: Any, inputs: dict[str, Any]) -> Tensor:
        """Hidden states (rows, n, d) that enter the first layer of a stage -> those of the tokens that stay."""
        prompt, selector, captured = self._prompt, self._selector, self._stop_capture()
        length, copies = prompt.length, prompt.copies(len(hidden))
        pruned_index = pruned_index_of(prompt.gather_indices[stage - 1], length)
        if len(prompt.gather_indices) == stage:
            if selector is None or hidden.shape[1] < int(pruned_index.max()) + 1:
                raise PruningError("the whole prompt must pass the model at once while tokens are dropped inside it")
            if selector.requested is not None and selector.requested.entering:
                captured |= self._captured_entering(selector.requested, index, stage, hidden, cache, inputs)
            prompt.add(selector.select(index, hidden[::copies], pruned_index, captured))
            if cache is not None:
                setattr(cache, DROPPED_PROMPT, prompt)
        if selector is not None:
            hidden = selector.with_merged(index, hidden, pruned_index)
        gather_index, num_before = prompt.gather_indices[stage], prompt.gather_indices[stage - 1].shape[1]
        staying = gather_features(pruned_index, gather_index, has_features=False).masked_fill(gather_index < 0, -1)
        staying = with_later_tokens(staying, num_before, gather_index.shape[1] + hidden.shape[1] - num_before)
        return gather_features(hidden, staying.repeat_interleave(copies, dim=0), has_features=True)

    def _cut(
        self, prompt: DroppedPrompt, index: int, stage: int, hidden: Tensor, cache: Any, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Cut the other inputs of layer `index` to fit `hidden` (rows, q, d)."""
        num_rows, num_queries = hidden.shape[:2]
        if cache is not None:
            self._size_masks(cache)
        # As wide as the keys will be: a static cache returns all its slots.
        num_keys, offset, cached = sizes_in_cache(cache, index, num_queries)
        indices = partial(prompt.indices, stage, num_rows, offset + num_keys)
        keys = self._once("keys", None, (stage, offset, num_keys), lambda: indices()[:, offset:])
        first = cached - offset
        queries = keys[:, first : first + num_queries]
        # Counted from the pass's first token, where they stand in what it brings.
        place = (stage, first, keys.shape[1])
        own = partial(shifted, queries, prompt.start)
        self._queries = self._once("queries", None, place, own) if self._spans else None
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

    def _once(self, name: str, value: Any, place: tuple[int, ...], make: Callable[[], Any]) -> Any:
        """`make()`, done once in a pass for all layers that get the same `value` at the same place."""
        key = (name, id(value), *place)
        if key not in self._cuts:
            self._cuts[key] = (make(), value)  # the value too, so that its id is not given to another
        return self._cuts[key][0]

    def _deepstack(self, add: Callable[..., Any], hidden: Tensor, visual_pos_masks: Tensor, features: Tensor) -> Any:
        """Add visual features behind a layer; those of tokens that are gone are left out."""
        if self._queries is not None:
            visual_pos_masks, features = gather_visual(visual_pos_masks, features, self._queries)
        return add(hidden, visual_pos_masks, features)


def _mask(mask: Any, queries: Tensor | None, keys: Tensor, total: int) -> Tensor:
    """Cut a layer's mask to the tokens that are left; at full length it ends behind token `total`, or further."""
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        raise PruningError(
            "attn_implementation must be 'sdpa' or 'eager' while tokens are dropped inside the model: got an attention "
            f"mask of shape {tuple(mask.shape)}, which cannot be cut"
        )
    return gather_mask(mask, queries, shifted(keys, max(total - mask.shape[-1], 0)))


def _per_token(name: str, value: Any, queries: Tensor, num_full: int) -> Any:
    """Gather an input of a decoder layer at the tokens `queries` (rows, q), if it has one entry a token."""
    if name == "attention_mask":
        return value
    if name == "position_ids" and value is not None:
        return gather_features(value, queries, has_features=False)
    if name == "position_embeddings" and value is not None:
        return tuple(gather_features(part, queries, has_features=True) for part in value)
    if name == "per_layer_input" and value is not None:
        return gather_features(value, queries, has_features=True)
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == num_full:
        raise PruningError(f"tokens cannot be dropped inside this model: its layers take {name!r} for each token")
    return value
