"""One call whose visual tokens are dropped inside the language model: encode -> run -> choose at layer K -> drop.

The call itself stays as it is, at full length, except that its pictures come encoded; the hooks of `layers` do the
rest.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.errors import PruningError
from divprune.huggingface.cache_names import cache_in
from divprune.huggingface.cache_size import with_cache_size
from divprune.huggingface.encoding.encode import Encoding
from divprune.huggingface.encoding.method_inputs import encode_for
from divprune.huggingface.encoding.texts import text_columns
from divprune.huggingface.families.registry import Family
from divprune.huggingface.gather_columns import take_columns
from divprune.huggingface.input_pruning.continuation import require_placeable_padding, require_placeable_pictures
from divprune.huggingface.input_pruning.generation import generation_setting
from divprune.huggingface.input_pruning.shorten import PADDING_VALUES, Settings, call_report, row_outputs
from divprune.huggingface.layer_pruning.checks import final_norm, require_cuttable_masks, require_right_blocks
from divprune.huggingface.layer_pruning.hooks import DEEPSTACK, DroppingHooks
from divprune.huggingface.layer_pruning.layer_selection import TokenChoice
from divprune.huggingface.layer_pruning.state import DroppedPrompt
from divprune.huggingface.layer_pruning.turns import (
    Turn,
    continued_positions,
    full_types,
    position_shift,
    turn_of,
    turn_positions,
)
from divprune.huggingface.report import PruningReport


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
    _turn: Turn
    _encoding: Encoding
    _choice: TokenChoice

    def report(self, model: PreTrainedModel) -> PruningReport:
        """What the finished call kept."""
        keep_mask = self.prompt.keep_mask(self._turn.attention_mask)
        report = call_report(self._encoding, self._choice.picks, self._choice.kept_tokens, keep_mask)
        length = self.prompt.stop
        lengths = self.prompt.sequence_lengths(num_layers(model), length)
        return with_cache_size(report, model, length, lengths)


def inside_call(
    model: PreTrainedModel, family: Family, settings: Settings, inputs: dict[str, Any], attention_mask: Tensor
) -> InsideCall:
    """Prepares a call with pictures or videos; arguments as for `shorten.shorten_call`.

    Raises:
        PruningError: the call continues from a cache that it does not fit, or tokens cannot be dropped in it.
    """
    require_cuttable_masks(model)
    turn, layers = turn_of(inputs, attention_mask), settings.method.layers
    if turn.before is not None and turn.before.layers != layers:
        raise PruningError(
            f"the cache lost tokens at layers {turn.before.layers}, got new pictures to drop at layers {layers}; "
            "attach a method with the same layers, or pass the whole conversation without the cache"
        )
    if turn.start:
        # The first new token was generated, and may be anything.
        require_placeable_pictures(model, family, turn.input_ids[:, 1:])
        require_placeable_padding(model, family, turn.own_mask)
    if turn.start and hasattr(model, "create_masks_for_generate"):
        require_right_blocks(family, cache_in(inputs))
    own = {**inputs, "input_ids": turn.input_ids, "attention_mask": turn.own_mask}
    encoding = encode_for(settings.method, model, family, own)
    _require_known_deepstack(model, encoding, layers[0])
    full = {name: value for name, value in inputs.items() if name not in encoding.consumed}
    full |= full_types(turn, inputs)
    texts = text_columns(model, family, encoding.items, turn.input_ids, turn.own_mask)
    choice = TokenChoice(encoding.items, settings, turn.own_mask, texts, final_norm(model))
    full["mm_encoder_outputs"], row_sizes = row_outputs(encoding, choice.picks, "sorted")
    prompt = DroppedPrompt.of(turn.input_ids, layers, turn.start, turn.before)
    # M-RoPE positions come from the pictures' sizes, which the encoder has used up.
    positions = turn_positions(model, family, turn, inputs)
    if positions is not None:
        full["position_ids"], prompt.position_shift = positions, position_shift(model, turn, positions)
    dropping = DroppingHooks(model.get_decoder(), prompt, choice).installed(cache_in(inputs))
    return InsideCall(full, dropping, prompt, row_sizes, turn, encoding, choice)


def continuing(
    model: PreTrainedModel, prompt: DroppedPrompt | None, inputs: dict[str, Any]
) -> AbstractContextManager[None]:
    """A context manager under which to make a call on a cache whose layers hold less of `prompt` than the first."""
    if prompt is None:
        return nullcontext()
    require_cuttable_masks(model)
    return DroppingHooks(model.get_decoder(), prompt).installed(cache_in(inputs))


def with_continued_positions(
    prompt: DroppedPrompt | None, inputs: dict[str, Any], attention_mask: Tensor | None
) -> dict[str, Any]:
    """The inputs of a turn of text alone, with the positions that follow the pruned prompt where models cannot tell."""
    if prompt is None or attention_mask is None or inputs.get("position_ids") is not None:
        return inputs
    positions = continued_positions(prompt, turn_of(inputs, attention_mask))
    return inputs if positions is None else {**inputs, "position_ids": positions}


def text_report(
    model: PreTrainedModel, attention_mask: Tensor | None, prompt: DroppedPrompt | None
) -> PruningReport | None:
    """Report of a call without pictures: everything attended is seen, less what an earlier turn dropped half-way."""
    if attention_mask is None:
        return None
    length = attention_mask.shape[1]
    if prompt is None:
        return with_cache_size(PruningReport((), attention_mask.bool().cpu()), model, length, length)
    if length < prompt.stop:
        raise PruningError(
            f"attention_mask must cover the cached prompt and the new tokens, more than {prompt.stop} columns, got "
            f"{length}"
        )
    lengths = prompt.sequence_lengths(num_layers(model), length)
    return with_cache_size(PruningReport((), prompt.keep_mask(attention_mask)), model, length, lengths)


def num_layers(model: PreTrainedModel) -> int:
    """Decoder layers of the language model."""
    return int(model.config.get_text_config().num_hidden_layers)


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
        vocabulary = output["logits"].shape[-1]  # Apertus 1.5 answers with fewer words than it reads
        loss = model.loss_function(logits=output["logits"], labels=short, vocab_size=vocabulary, **options)
        output = type(output)(**{**output, "loss": loss})
    return output.to_tuple() if as_dict is False else output


def forward_mask(inputs: dict[str, Any]) -> Tensor:
    """(B, L) the mask over the whole conversation of a call of `forward` that brings pictures."""
    mask: Tensor | None = inputs.get("attention_mask")
    if mask is not None:
        return mask
    ids, cache = inputs.get("input_ids"), cache_in(inputs)
    if ids is None:
        raise PruningError("input_ids must be given while the model is pruned: inputs_embeds show no placeholders")
    cached = 0 if cache is None else int(cache.get_seq_length())
    return torch.ones(len(ids), cached + ids.shape[1], dtype=torch.int64, device=ids.device)


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


def _require_known_deepstack(model: PreTrainedModel, encoding: Encoding, layer: int) -> None:
    """Refuses to drop before layers that add visual features in a way that is not known."""
    depth = max(len(getattr(output, "deepstack_features", None) or ()) for output in encoding.outputs.values())
    if layer < depth and not hasattr(model.get_decoder(), DEEPSTACK):
        raise PruningError(
            f"layer must be at least {depth} for this model, got {layer}: it adds visual features to the hidden states "
            f"of all visual tokens after layers 0 to {depth - 1}"
        )
