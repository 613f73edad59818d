"""Dropping tokens at decoder layer K: hooks that stand before the layers from K on, for one call.

Embedding, masks, positions and caches are made by the model at full length. At the entrance of layer K the hidden
states of the dropped tokens are left out, and every layer from there on gets its mask, positions and rotary embeddings
cut to match. So layers 0 to K - 1 cache the full prompt and the later ones a shorter one; later calls on that cache cut
the masks again.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from divprune.errors import PruningError
from divprune.huggingface.dropped import DROPPED_PROMPT, DroppedPrompt
from divprune.huggingface.gather import causal_mask, slots_of, take_mask, take_tokens, with_later_columns
from divprune.huggingface.probe import LastRowProbe

Chooser = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]
"""(layer, hidden states (B, n, d), slots (B, L), attention (B, heads, n) or None) -> source (B, L').

`slots[b, c]` says where in the hidden states and in the attention prompt column c of row b stands."""


class DroppingHooks:
    """The hooks of one call of `generate` or `forward`."""

    def __init__(
        self, layers: nn.ModuleList, prompt: DroppedPrompt, choose: Chooser | None = None, last: Tensor | None = None
    ) -> None:
        """Prepares the hooks; `installed` puts them in place.

        Args:
            layers: all decoder layers.
            prompt: what was dropped, or where to drop.
            choose: which columns stay; not needed if that is decided.
            last: (B,) int64 columns whose attention the chooser wants to see; None if it does not.
        """
        self._layers = layers
        self._prompt = prompt
        self._choose = choose
        self._last = last
        self._probe: LastRowProbe | None = None
        self._spans = False
        self._cuts: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hooks in place; afterwards, whatever happened, the model is as before."""
        handles = []
        try:
            for index in range(self._prompt.layers[0], len(self._layers)):
                handles.append(self._layers[index].register_forward_pre_hook(self._cutter(index), with_kwargs=True))
            for stage, index in enumerate(self._prompt.layers if self._last is not None else (), start=1):
                handles.append(self._layers[index - 1].register_forward_pre_hook(self._listener(stage)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stop_probe()
            self._cuts.clear()

    def _cutter(self, index: int) -> Callable[..., Any]:
        names = list(inspect.signature(self._layers[index].forward).parameters)

        def cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            inputs = dict(zip(names, args, strict=False)) | kwargs
            hidden = inputs.pop("hidden_states")
            hidden = self._entering(index, hidden, inputs.get("past_key_values"))
            return (hidden,), self._cut(index, hidden, inputs)

        return cut

    def _listener(self, stage: int) -> Callable[..., None]:
        def listen(layer: Any, _: Any) -> None:
            if self._last is not None and len(self._prompt.sources) == stage:
                slots = slots_of(self._prompt.sources[stage - 1], self._prompt.length)
                self._probe = LastRowProbe(layer.self_attn, slots.gather(-1, self._last[:, None]).squeeze(-1))

        return listen

    def _stop_probe(self) -> Tensor | None:
        probe, self._probe = self._probe, None
        if probe is None:
            return None
        probe.stop()
        return probe.probabilities

    def _entering(self, index: int, hidden: Tensor, cache: Any) -> Tensor:
        """Hidden states as layer `index` gets them; the dropped ones left out where it is one that drops."""
        prompt, stage = self._prompt, self._prompt.stage_of(index)
        if index == prompt.layers[0]:
            # A pass without a cache brings the prompt again and again; else only the first one does.
            self._spans = cache is None or not prompt.is_decided
            self._cuts.clear()
        if not self._spans or index != prompt.layers[stage - 1]:
            return hidden
        slots = slots_of(prompt.sources[stage - 1], prompt.length)
        if len(prompt.sources) == stage:
            prompt.add(self._chosen(index, hidden, slots))
            if cache is not None:
                setattr(cache, DROPPED_PROMPT, prompt)
        return take_tokens(hidden, self._staying(stage, slots, hidden), has_features=True)

    def _chosen(self, index: int, hidden: Tensor, slots: Tensor) -> Tensor:
        attention = self._stop_probe()
        if self._choose is None or hidden.shape[1] < int(slots.max()) + 1:
            raise PruningError("the whole prompt must pass the model at once while tokens are dropped inside it")
        return self._choose(index, hidden.detach()[:: self._prompt.copies(len(hidden))], slots, attention)

    def _staying(self, stage: int, slots: Tensor, hidden: Tensor) -> Tensor:
        """(rows, n') columns of `hidden` (rows, n, d) that stay when this stage begins."""
        source, num_before = self._prompt.sources[stage], self._prompt.sources[stage - 1].shape[1]
        staying = take_tokens(slots, source, has_features=False).masked_fill(source < 0, -1)
        num_later = hidden.shape[1] - num_before
        staying = with_later_columns(staying, num_before, source.shape[1] + num_later)
        return staying.repeat_interleave(self._prompt.copies(len(hidden)), dim=0)

    def _cut(self, index: int, hidden: Tensor, inputs: dict[str, Any]) -> dict[str, Any]:
        """The other inputs of layer `index`, cut to fit `hidden` (rows, q, d)."""
        num_rows, num_queries = hidden.shape[:2]
        stage, cache = self._prompt.stage_of(index), inputs.get("past_key_values")
        # As wide as the keys will be: a static cache returns all its slots.
        num_keys = num_queries if cache is None else cache.get_mask_sizes(num_queries, index)[0]
        place = (stage, num_keys)
        keys = self._once("keys", None, place, partial(self._prompt.columns, stage, num_rows, num_keys))
        queries = keys[:, :num_queries] if self._spans else None
        mask = inputs.get("attention_mask")
        if mask is not None:
            inputs["attention_mask"] = self._once("mask", mask, place, partial(_mask, mask, queries, keys))
        elif self._prompt.ragged[stage]:
            columns = keys[:, -num_queries:] if queries is None else queries
            inputs["attention_mask"] = self._once("mask", mask, place, partial(causal_mask, columns, keys, hidden))
        if queries is None:
            return inputs
        num_full = self._prompt.length + num_queries - self._prompt.sources[stage].shape[1]
        return {
            name: self._once(name, value, place, partial(_per_token, name, value, queries, num_full))
            for name, value in inputs.items()
        }

    def _once(self, name: str, value: Any, place: tuple[int, int], make: Callable[[], Any]) -> Any:
        """`make()`, done once in a pass for all layers that get the same `value` at the same place."""
        key = (name, id(value), *place)
        if key not in self._cuts:
            self._cuts[key] = (make(), value)  # the value too, so that its id is not given to another
        return self._cuts[key][0]


def _mask(mask: Any, queries: Tensor | None, keys: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        raise PruningError(
            "attn_implementation must be 'sdpa' or 'eager' while tokens are dropped inside the model: got an attention "
            f"mask of shape {tuple(mask.shape)}, which cannot be cut"
        )
    return take_mask(mask, queries, keys)


def _per_token(name: str, value: Any, queries: Tensor, num_full: int) -> Any:
    """An input of a decoder layer at the columns `queries` (rows, q), if it holds something for each token."""
    if name == "attention_mask":
        return value
    if name == "position_ids" and value is not None:
        return take_tokens(value, queries, has_features=False)
    if name == "position_embeddings" and value is not None:
        return tuple(take_tokens(part, queries, has_features=True) for part in value)
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == num_full:
        raise PruningError(f"tokens cannot be dropped inside this model: its layers take {name!r} for each token")
    return value
