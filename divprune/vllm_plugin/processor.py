"""The front end's half: prompts get as many placeholders as the workers will keep rows.

One mixin serves all families. It comes in front of the family's own processor, whose prompt replacements say how many
tokens an item has, M; of them `divprune.budget` says how many stay. The item's budget goes to the workers as a field of
its own, and is part of the hash by which processed items, encoder outputs and KV blocks are cached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import (
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from divprune.budget import Budget
from divprune.errors import UnsupportedModelError, first_line, root_cause
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.families import ServedFamily, served_family
from divprune.vllm_plugin.given import BUDGET, Given, holds_budget
from divprune.vllm_plugin.positions import num_positions
from divprune.vllm_plugin.settings import REQUEST_KEYS, PruningSettings, allowed_count, as_integers
from divprune.vllm_plugin.token_counts import ItemCount, count_item

MODALITIES: tuple[Modality, ...] = ("image", "video")


def budget_field(modality: str) -> str:
    """Return the name of the field that tells workers of a batch's items, (n, 3) int64: the budget, then M."""
    return f"divprune_{modality}_budget"


class PrunedInfo(BaseProcessingInfo):
    """Comes in front of a family's processing information: what the engine makes room for."""

    @cached_property
    def pruning(self) -> PruningSettings:
        """The server's settings."""
        return PruningSettings.of(self.ctx.get_hf_config())

    @cached_property
    def family(self) -> ServedFamily:
        """The model's family."""
        architecture = self.ctx.model_config.architecture
        family = served_family(architecture)
        if family is None:
            raise UnsupportedModelError(f"architectures must name one that is served pruned, got {architecture!r}")
        return family

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Allow none of what the family is not pruned with."""
        limits = super().get_supported_mm_limits()
        return {modality: limit if modality in self.family.modalities else 0 for modality, limit in limits.items()}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int] | None:
        """Count kept tokens, so that profiling encodes as many items at once as the scheduler will."""
        counts = super().get_mm_max_tokens_per_item(seq_len, mm_counts)
        if counts is None:
            return None
        kept = {modality: self.pruning.budget.count(count) if count else 0 for modality, count in counts.items()}
        if kept.get("video") and self.family.has_video_text:
            kept["video"] += self._num_text_tokens(seq_len, mm_counts)
        return kept

    def _num_text_tokens(self, seq_len: int, mm_counts: Mapping[str, int]) -> int:
        """Text between frames is embedded with them: a timestamp and two delimiter tokens for each."""
        frames = self.get_num_frames_with_most_features(seq_len=seq_len, mm_counts=mm_counts)
        timestamp = self.get_tokenizer().encode("<9999.9 seconds>", add_special_tokens=False)
        return int(frames) * (len(timestamp) + 2)


@dataclass
class PrunedDetails(PromptUpdateDetails):
    """An item's part of the prompt, how many placeholders it had, and how many are gone."""

    num_visual_tokens: int = 0
    num_dropped: int = 0


class PrunedProcessor(BaseMultiModalProcessor[PrunedInfo]):
    """Comes in front of a family's processor."""

    # vLLM may rename the parameters of these methods, and gives some by keyword and others by place. So each hands on
    # what it got, and knows its own by what it is.

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Read the request's budget before anything else happens."""
        given = Given(args, kwargs)
        place, inputs = given.find(lambda value: isinstance(value, ProcessorInputs), "a request")
        asked = inputs.hf_processor_mm_kwargs
        budget = self.info.pruning.request_budget(asked)
        rest = {name: value for name, value in asked.items() if name not in REQUEST_KEYS}
        rest[BUDGET] = [self.info.pruning.method, *as_integers(budget)]
        args, kwargs = given.with_value(place, replace(inputs, hf_processor_mm_kwargs=rest))
        try:
            return super().apply(*args, **kwargs)
        except ValueError as error:
            if error.__cause__ is None:
                raise
            # vLLM names the arguments of the call that failed, and not why.
            raise ValueError(
                f"the model's processor refuses an image or video of this request: {first_line(root_cause(error))}"
            ) from error

    def _apply_hf_processor_main(self, *args: Any, **kwargs: Any) -> Any:
        given = Given(args, kwargs)
        _, items = given.find(lambda value: isinstance(value, MultiModalDataItems), "a prompt's media")
        args, kwargs, budget = given.without_budget()
        processed = super()._apply_hf_processor_main(*args, **kwargs)
        for modality, count in items.get_all_counts().items():
            if count:
                # How many visual tokens an item has is known when its part of the prompt is made.
                processed[budget_field(modality)] = torch.tensor([[*as_integers(budget), 0]] * count)
        return processed

    def _get_mm_fields_config(self, *args: Any, **kwargs: Any) -> Mapping[str, MultiModalFieldConfig]:
        given = Given(args, kwargs)
        _, processed = given.find(lambda value: not holds_budget(value), "what the processor made")
        args, kwargs, _ = given.without_budget()
        fields = dict(super()._get_mm_fields_config(*args, **kwargs))
        for modality in MODALITIES:
            if budget_field(modality) in processed:
                fields[budget_field(modality)] = MultiModalFieldConfig.batched(modality, keep_on_cpu=True)
        return fields

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Sequence[PromptUpdate]:
        given = Given(args, kwargs)
        _, made = given.find(lambda value: isinstance(value, MultiModalKwargsItems), "what the processor made")
        args, kwargs, budget = given.without_budget()
        return [
            self._pruned_update(update, budget, made.get(update.modality, ()))
            for update in super()._get_prompt_updates(*args, **kwargs)
        ]

    def _maybe_apply_prompt_updates(self, *args: Any, **kwargs: Any) -> Any:
        _, processed = Given(args, kwargs).find(lambda value: hasattr(value, "prompt_updates"), "a processed prompt")
        ids, placeholders = super()._maybe_apply_prompt_updates(*args, **kwargs)
        items = [
            (modality, updates[0].content) for modality, each in processed.prompt_updates.items() for updates in each
        ]
        self._require_positions(len(ids) + sum(content.num_dropped for _, content in items))
        for modality, content in items:
            num_kept = content.num_visual_tokens - content.num_dropped
            count_item(ItemCount(modality, content.num_visual_tokens, num_kept))
        return ids, placeholders

    def _require_positions(self, unpruned_length: int) -> None:
        """Refuse prompts in which positions, which dropped tokens keep occupied, could leave vLLM's tables."""
        model = self.info.ctx.model_config
        if not model.uses_mrope:
            return
        most = num_positions(model) - model.max_model_len
        if unpruned_length > most:
            raise ValueError(
                f"a prompt must have at most {most} tokens before pruning, got {unpruned_length}: kept tokens keep "
                "their positions, and this model's do not reach further; send fewer or smaller images"
            )

    def _pruned_update(self, update: PromptUpdate, budget: Budget, made: Sequence[Any]) -> PromptUpdate:
        """Shorten each item's part of the prompt, and note how long it was in what the processor made of the item."""
        if not isinstance(update, PromptReplacement):
            raise TypeError(f"a pruned family must replace its placeholders, got {type(update).__name__}")
        is_video, pruned = update.modality == "video", []
        for index, item in enumerate(made):
            content = update.replacement(index) if callable(update.replacement) else update.replacement
            details = content if isinstance(content, PromptUpdateDetails) else PromptUpdateDetails.from_seq(content)
            if is_video:
                self._require_room(details)
            has_text = is_video and self.info.family.has_video_text
            pruned.append(pruned_details(details, budget, self.info.pruning.budget, has_text=has_text))
            item[budget_field(update.modality)].data[-1] = pruned[-1].num_visual_tokens
        return replace(update, replacement=pruned.__getitem__)

    def _require_room(self, details: PromptUpdateDetails) -> None:
        """Refuse videos that the vision encoder was not profiled with: unpruned, they would not fit the context."""
        most = self.info.ctx.model_config.max_model_len
        if len(details.full) > most:
            raise ValueError(
                f"a video must have at most {most} tokens before pruning (max_model_len), got {len(details.full)}; "
                "send fewer frames, or start the server with a larger --max-model-len"
            )


def pruned_details(details: PromptUpdateDetails, budget: Budget, server: Budget, has_text: bool) -> PrunedDetails:
    """Return an item's prompt text with as many placeholders as the budget keeps; what stands around them stays.

    Args:
        details: The item's part of the whole prompt.
        budget: Of the item.
        server: The largest one allowed.
        has_text: Whether text may stand between the placeholders. How many are left on each side of it is known only
            after the vision encoder has run, so that the workers embed the text too, in its place.

    Raises:
        ValueError: Other tokens stand between the placeholders, or the request asks for more than the server keeps.
    """
    full = list(details.full)
    places = list(range(len(full))) if details.is_embed is None else details.is_embed(full).nonzero().flatten().tolist()
    total = len(places)
    if places[-1] - places[0] + 1 != total and not has_text:
        raise ValueError(
            "this model cannot be served pruned: other tokens stand between the placeholders of an item (image "
            "newline tokens), and which of them to move closer is known only after the vision encoder has run"
        )
    count = allowed_count(budget, server, total)
    gone = set(places[count:])
    stays = [token for place, token in enumerate(full) if place not in gone]
    return PrunedDetails(stays, None if has_text else details.is_embed, total, total - count)


def pruned_class(mixin: type[Any], base: type[Any]) -> type[Any]:
    """Return the class of a family's processor, or of its information, with the mixin in front."""
    return type(f"Pruned{base.__name__}", (mixin, base), {})
