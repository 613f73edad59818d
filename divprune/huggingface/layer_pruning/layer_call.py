"""One call whose visual tokens are dropped inside the LLM.

The call itself stays as it is, at full length, except that its images come encoded; hooks on the decoder layers drop
the tokens half-way, for the time of the call.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.config import PruningConfig
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.call import Call
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.encoder_output import kept_outputs, whole_rows_repeated
from divprune.huggingface.encoding.method_inputs import instruction_tokens
from divprune.huggingface.gather_tokens import gather_tokens, places_of
from divprune.huggingface.input_pruning.cache import lock_dropped, unlocked
from divprune.huggingface.input_pruning.checks import require_placeable_images, require_placeable_padding
from divprune.huggingface.layer_pruning.checks import (
    final_norm,
    require_cuttable_masks,
    require_known_deepstack,
    require_layers_run_once,
    require_one_prefill,
    require_right_blocks,
    require_same_layers,
    require_whole_mask,
)
from divprune.huggingface.layer_pruning.hooks import DEEPSTACK, DroppingHooks
from divprune.huggingface.layer_pruning.layer_selection import LayerSelector
from divprune.huggingface.layer_pruning.new_turn import (
    continued_turn_positions,
    full_types,
    position_shift,
    turn_of,
    turn_positions,
)
from divprune.huggingface.layer_pruning.state import DroppedPrompt
from divprune.huggingface.model_inputs import PADDING_VALUES
from divprune.huggingface.report import PruningReport, call_report


class LayerPruning:
    """A call at full length, and what drops tokens while it runs.

    Attributes:
        inputs: its arguments, `mm_encoder_outputs` among them.
        prompt: what has been dropped, afterwards.
    """

    def __init__(self, call: Call, config: PruningConfig) -> None:
        """Encode the call's images and prepare the hooks.

        Raises:
            PruningError: the call continues from a cache that it does not fit, or tokens cannot be dropped in it.
        """
        adapter, inputs, layers = call.adapter, call.inputs, config.method.layers
        self._decoder = adapter.decoder
        require_cuttable_masks(adapter)
        self._call, self._turn = call, turn_of(call)
        turn = self._turn
        require_same_layers(turn.before, layers)
        if turn.start:
            # The first new token was generated, and may be anything.
            require_placeable_images(adapter, turn.input_ids[:, 1:])
            require_placeable_padding(adapter, turn.own_mask)
            if hasattr(adapter.model, "create_masks_for_generate"):
                require_right_blocks(adapter.family, call.cache)
        own = {**inputs, "input_ids": turn.input_ids, "attention_mask": turn.own_mask}
        self._encoding = encode(adapter, config, own)
        require_known_deepstack(self._encoding, layers[0], hasattr(self._decoder, DEEPSTACK))
        full = {name: value for name, value in inputs.items() if name not in self._encoding.consumed}
        full |= full_types(turn, inputs)
        items = self._encoding.items
        instructions = instruction_tokens(adapter, items, turn.input_ids, turn.own_mask)
        norm = final_norm(self._decoder) if "final_norm" in config.method.needs | config.method.layer_needs else None
        self._selector = LayerSelector(items, config, turn.own_mask, instructions, norm)
        full["mm_encoder_outputs"], self._row_sizes = kept_outputs(self._encoding, self._selector.selections, "sorted")
        self.prompt = DroppedPrompt.of(turn.input_ids, layers, turn.start, turn.before)
        # M-RoPE positions come from the images' sizes, which the encoder has used up.
        positions = turn_positions(adapter, turn, inputs)
        if positions is not None:
            full["position_ids"], self.prompt.position_shift = positions, position_shift(adapter, turn, positions)
        self.inputs = full

    @contextmanager
    def installed(self, owner: PreTrainedModel) -> Iterator[None]:
        """Install the hooks on the model whose `generate` or `forward` will run; as before on exit."""
        call = self._call
        hooks = DroppingHooks(self._decoder, self.prompt, self._selector)
        usable: AbstractContextManager[None] = nullcontext() if call.cache is None else unlocked(call.cache)
        with usable, whole_rows_repeated(owner, self._row_sizes), hooks.installed(call.cache):
            yield

    def generate(self, owner: PreTrainedModel, generate: Callable[..., Any]) -> Any:
        """Generate, and lock the cache, whose layers now hold different parts of the prompt."""
        with self.installed(owner):
            output = generate(**self.inputs)
        lock_dropped(self._call.cache, output)
        return output

    def forward(self, forward: Callable[..., Any]) -> Any:
        """Call `forward`; logits are over the pruned prompt, and the loss is of the labels that stand there.

        Raises:
            PruningError: gradient checkpointing would run the layers again after the hooks are gone.
        """
        model = self._call.adapter.model
        require_layers_run_once(self._call.adapter)
        inputs = dict(self.inputs)
        labels, as_dict = inputs.pop("labels", None), inputs.pop("return_dict", None)
        wanted = inputs.pop("logits_to_keep") if isinstance(inputs.get("logits_to_keep"), Tensor) else None
        with self.installed(model):
            output: ModelOutput = forward(**inputs, return_dict=True)
        if labels is not None:
            pruned = gather_tokens(labels, self.prompt.gather_indices[-1], PADDING_VALUES["labels"])
            options = {name: inputs[name] for name in ("num_items_in_batch",) if name in inputs}
            vocabulary = output["logits"].shape[-1]  # Apertus 1.5 answers with fewer words than it reads
            loss = model.loss_function(logits=output["logits"], labels=pruned, vocab_size=vocabulary, **options)
            output = type(output)(**{**output, "loss": loss})
        if wanted is not None:
            places = places_of(wanted, self.prompt.gather_indices[-1], self.prompt.length)
            output["logits"] = output["logits"][:, places]
        lock_dropped(self._call.cache, output)
        return output.to_tuple() if as_dict is False else output

    def report(self) -> PruningReport:
        """Report what the finished call kept."""
        adapter, selector, num_layers = self._call.adapter, self._selector, self._call.adapter.num_layers
        keep_mask, length = self.prompt.keep_mask(self._turn.attention_mask), self.prompt.stop
        lengths = self.prompt.sequence_lengths(num_layers, length)
        items = (self._encoding, selector.selections, selector.kept_tokens)
        gather_index = self.prompt.gather_indices[-1]
        return call_report(adapter.model, keep_mask, length, lengths, *items, gather_index)


@contextmanager
def continuing(call: Call) -> Iterator[None]:
    """Let a call of text alone run on a cache whose layers may hold less of its prompt than the first."""
    if call.dropped is None:
        with unlocked(call.cache):
            yield
        return
    require_cuttable_masks(call.adapter)
    hooks = DroppingHooks(call.adapter.decoder, call.dropped)
    with unlocked(call.cache), hooks.installed(call.cache):
        yield


def text_arguments(call: Call) -> dict[str, Any]:
    """Give `generate` text alone, with the positions that follow a pruned prompt where models cannot tell."""
    if call.dropped is None:
        return call.inputs
    inputs = uncompiled(call.adapter, call.inputs)
    if call.attention_mask is None or inputs.get("position_ids") is not None:
        return inputs
    positions = continued_turn_positions(call.dropped, turn_of(call))
    return inputs if positions is None else {**inputs, "position_ids": positions}


def text_report(call: Call) -> PruningReport | None:
    """Report a call without images: everything attended is seen, less what an earlier turn dropped half-way."""
    mask, dropped = call.attention_mask, call.dropped
    if mask is None:
        return None
    adapter, length = call.adapter, mask.shape[1]
    if dropped is None:
        return call_report(adapter.model, mask.bool(), length, length)
    require_whole_mask(mask, dropped)
    lengths = dropped.sequence_lengths(adapter.num_layers, length)
    return call_report(adapter.model, dropped.keep_mask(mask), length, lengths)


def uncompiled(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Turn compilation off: the hooks read and write Python state in each step, which a compiled step would not see.

    Raises:
        PruningError: the prefill comes in chunks.
    """
    require_one_prefill(adapter, inputs)
    if inputs.get("generation_config") is None:
        return {**inputs, "disable_compile": True}
    config = copy.deepcopy(inputs["generation_config"])
    config.disable_compile = True
    return {**inputs, "generation_config": config}
