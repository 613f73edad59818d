"""One call whose visual tokens are dropped inside the language model: encode -> run -> choose at layer K -> drop.

The call itself stays as it is, at full length, except that its pictures come encoded; the hooks of `layers` do the
rest.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.errors import PruningError
from divprune.huggingface.cache_size import with_cache_size
from divprune.huggingface.choose import Picks, choose
from divprune.huggingface.dropped import DroppedPrompt
from divprune.huggingface.encode import Encoding, VisualItem, encode
from divprune.huggingface.families import Family
from divprune.huggingface.generation import generation_setting
from divprune.huggingface.layer_checks import require_cuttable_masks
from divprune.huggingface.layers import DroppingHooks
from divprune.huggingface.prompt import source_columns, take_columns
from divprune.huggingface.report import PruningReport
from divprune.huggingface.shorten import PADDING_VALUES, Settings, call_report, row_outputs, short_positions


class TokenChoice:
    """Which visual tokens of a call are still there; called by each layer that drops some.

    Attributes:
        picks: for each item, indices into its original tokens.
        kept_tokens: for each item, (k, d) the hidden states by which its kept tokens were chosen.
    """

    def __init__(self, items: list[VisualItem], settings: Settings, attention_mask: Tensor) -> None:
        """Starts with every token of `items`; `attention_mask` is (B, L)."""
        every_token = [torch.arange(len(item.columns), device=item.columns.device) for item in items]
        self.picks = [Picks(tokens, tokens, 0.0) for tokens in every_token]
        self.kept_tokens = [item.visual_tokens for item in items]
        self._items = items
        self._settings = settings
        self._attention_mask = attention_mask

    def __call__(self, layer: int, hidden: Tensor, slots: Tensor, attention: Tensor | None) -> Tensor:
        """See `layers.Chooser`."""
        left = [
            self._left(item, pick.kept_indices, hidden, slots, attention)
            for item, pick in zip(self._items, self.picks, strict=True)
        ]
        chosen = choose(left, self._settings.method, self._settings.budget, self._settings.scope, layer)
        self.kept_tokens = [item.visual_tokens[pick.kept_indices] for item, pick in zip(left, chosen, strict=True)]
        self.picks = [_after(before, pick) for before, pick in zip(self.picks, chosen, strict=True)]
        return source_columns(self.keep_mask(), self._attention_mask)

    def keep_mask(self) -> Tensor:
        """(B, L) bool, False at the placeholders of dropped tokens."""
        keep = torch.ones_like(self._attention_mask, dtype=torch.bool)
        for item, pick in zip(self._items, self.picks, strict=True):
            keep[item.row, item.columns] = False
            keep[item.row, item.columns[pick.kept_indices]] = True
        return keep

    def _left(
        self, item: VisualItem, tokens: Tensor, hidden: Tensor, slots: Tensor, attention: Tensor | None
    ) -> VisualItem:
        """What is left of an item, as it enters a layer."""
        columns = item.columns[tokens]
        at = slots[item.row, columns].to(hidden.device)
        layout = item.layout
        if layout is not None and len(tokens) < len(item.columns):
            layout = replace(layout, cells=layout.cells[tokens.cpu()], frame=layout.frame[tokens.cpu()], grid=None)
        heads = None if attention is None else attention[item.row].to(hidden.device)[:, at]
        return VisualItem(item.kind, item.row, columns, hidden[item.row, at], layout, item.start, heads)


def _after(before: Picks, pick: Picks) -> Picks:
    """Picks among what was left -> picks among all tokens."""
    tokens = before.kept_indices
    order, kept = (tokens[indices.to(tokens.device)] for indices in (pick.selection_order, pick.kept_indices))
    return Picks(order, kept, before.seconds + pick.seconds)


@dataclass(frozen=True)
class InsideCall:
    """A call at full length, and what drops tokens while it runs.

    Attributes:
        inputs: its arguments, `mm_encoder_outputs` among them.
        dropping: a context manager under which to make the call.
        prompt: what has been dropped, afterwards.
        row_sizes: per kind, the visual tokens of each row that has any, see `features.whole_rows_repeated`.
    """

    inputs: dict[str, Any]
    dropping: AbstractContextManager[None]
    prompt: DroppedPrompt
    row_sizes: dict[str, list[int]]
    _encoding: Encoding
    _choice: TokenChoice
    _attention_mask: Tensor

    def report(self, model: PreTrainedModel) -> PruningReport:
        """What the finished call kept."""
        keep_mask = self._choice.keep_mask() & self._attention_mask.bool()
        report = call_report(self._encoding, self._choice.picks, self._choice.kept_tokens, keep_mask)
        length = self.prompt.length
        lengths = self.prompt.sequence_lengths(model.config.get_text_config().num_hidden_layers, length)
        return with_cache_size(report, model, length, lengths)


def inside_call(
    model: PreTrainedModel, family: Family, settings: Settings, inputs: dict[str, Any], attention_mask: Tensor
) -> InsideCall:
    """Prepares a call with pictures or videos; arguments as for `shorten.shorten_call`."""
    require_cuttable_masks(model)
    encoding = encode(model, family, inputs)
    _require_after_deepstack(encoding, settings.method.layers[0])
    full = {name: value for name, value in inputs.items() if name not in encoding.consumed}
    choice = TokenChoice(encoding.items, settings, attention_mask)
    full["mm_encoder_outputs"], row_sizes = row_outputs(encoding, choice.picks, "sorted")
    prompt = DroppedPrompt.of(inputs["input_ids"], settings.method.layers)
    # M-RoPE positions come from the pictures' sizes, which the encoder has used up.
    positions = short_positions(model, family.positions, inputs, attention_mask, prompt.sources[0])
    if positions is not None:
        full["position_ids"] = positions
    last = None
    if settings.method.needs_attention:
        last = (prompt.sources[0] * attention_mask.bool()).amax(dim=-1)
    dropping = DroppingHooks(decoder_layers(model), prompt, choice, last).installed()
    return InsideCall(full, dropping, prompt, row_sizes, encoding, choice, attention_mask)


def continuing(model: PreTrainedModel, prompt: DroppedPrompt | None) -> AbstractContextManager[None]:
    """A context manager under which to make a call on a cache whose layers hold less of `prompt` than the first."""
    if prompt is None:
        return nullcontext()
    require_cuttable_masks(model)
    return DroppingHooks(decoder_layers(model), prompt).installed()


def text_report(
    model: PreTrainedModel, attention_mask: Tensor | None, prompt: DroppedPrompt | None
) -> PruningReport | None:
    """Report of a call without pictures: everything attended is seen, less what an earlier turn dropped half-way."""
    if attention_mask is None:
        return None
    length = attention_mask.shape[1]
    if prompt is None:
        return with_cache_size(PruningReport((), attention_mask.bool().cpu()), model, length, length)
    if length < prompt.length:
        raise PruningError(
            f"attention_mask must cover the cached prompt and the new tokens, more than {prompt.length} columns, got "
            f"{length}"
        )
    lengths = prompt.sequence_lengths(model.config.get_text_config().num_hidden_layers, length)
    return with_cache_size(PruningReport((), prompt.keep_mask(attention_mask)), model, length, lengths)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of the language model."""
    return cast(nn.ModuleList, model.get_decoder().layers)


def generate_inside(generate: Callable[..., Any], call: InsideCall) -> Any:
    """Makes a call of `generate`."""
    with call.dropping:
        return generate(**call.inputs)


def forward_inside(model: PreTrainedModel, forward: Callable[..., Any], call: InsideCall) -> Any:
    """Makes a call of `forward`; logits are over the short prompt, and the loss is of the labels that stand there.

    Raises:
        PruningError: gradient checkpointing would run the layers again after the hooks are gone.
    """
    if model.training and any(getattr(layer, "gradient_checkpointing", False) for layer in decoder_layers(model)):
        raise PruningError("gradient checkpointing must be off while tokens are dropped inside the model")
    inputs = dict(call.inputs)
    labels, as_dict = inputs.pop("labels", None), inputs.pop("return_dict", None)
    with call.dropping:
        output: ModelOutput = forward(**inputs, return_dict=True)
    if labels is not None:
        short = take_columns(labels, call.prompt.sources[-1], PADDING_VALUES["labels"])
        options = {name: inputs[name] for name in ("num_items_in_batch",) if name in inputs}
        vocabulary = model.config.get_text_config().vocab_size
        loss = model.loss_function(logits=output["logits"], labels=short, vocab_size=vocabulary, **options)
        output = type(output)(**{**output, "loss": loss})
    return output.to_tuple() if as_dict is False else output


def prepare_generation(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """Refuses ways of generating that cannot drop inside the model, and turns off compilation; changes `inputs`.

    Raises:
        PruningError: the prefill comes in chunks.
    """
    if generation_setting(model, inputs, "prefill_chunk_size") is not None:
        raise PruningError(
            "prefill_chunk_size must be None while tokens are dropped inside the model: the choice at layer K needs "
            "the whole prompt at once"
        )
    # The hooks read and write Python state in each step, which a compiled step would not see again.
    if inputs.get("generation_config") is not None:
        inputs["generation_config"] = copy.deepcopy(inputs["generation_config"])
        inputs["generation_config"].disable_compile = True
    else:
        inputs["disable_compile"] = True


def _require_after_deepstack(encoding: Encoding, layer: int) -> None:
    """Refuses to drop before layers that add visual features to the hidden states of every visual token."""
    depth = max(len(getattr(output, "deepstack_features", None) or ()) for output in encoding.outputs.values())
    if layer < depth:
        raise PruningError(
            f"layer must be at least {depth} for this model, got {layer}: it adds visual features to the hidden states "
            f"of all visual tokens after layers 0 to {depth - 1}"
        )
