"""The hand-made reference: transformers reads the kept rows at the right positions, one prompt at a time, uncached.

Nothing of `divprune.vllm_plugin` or `divprune.huggingface` is used here; the kept set comes from
`divprune.selection.reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.video_utils import VideoMetadata

from divprune.budget import budget
from divprune.selection.reference import reference_select
from tests.support.models.every_family import encoded

KeepRule = Callable[[Tensor], Tensor]
"""(M, d) visual tokens of one item -> ascending indices of those that stay."""
Media = dict[str, list[Any]]
"""The pictures and videos of a prompt: {"image": [...], "video": [...]}."""


def divprune_rule(keep_ratio: float) -> KeepRule:
    def keep(tokens: Tensor) -> Tensor:
        picks = reference_select(tokens, budget(len(tokens), keep_ratio=keep_ratio))
        return torch.as_tensor(picks).sort().values

    return keep


def first_rows(keep_ratio: float) -> KeepRule:
    """A wrong choice of the right size."""
    return lambda tokens: torch.arange(budget(len(tokens), keep_ratio=keep_ratio))


def arguments(media: Media) -> dict[str, Any]:
    """What a processor is given of a prompt's media; a video comes with what is known about it."""
    given: dict[str, Any] = {}
    if media.get("image"):
        given["images"] = media["image"]
    if media.get("video"):
        given["videos"] = [frames for frames, _ in media["video"]]
        given["video_metadata"] = [
            VideoMetadata(**{name: value for name, value in known.items() if name != "do_sample_frames"})
            for _, known in media["video"]
        ]
        given["do_sample_frames"] = False
    return given


@dataclass
class Short:
    """A shortened prompt: (1, n, d) embeddings, (..., 1, n) positions, features for deeper layers."""

    embeddings: Tensor
    positions: Tensor
    next_position: int
    is_visual: Tensor
    deepstack: list[Tensor] = field(default_factory=list)


class Reference:
    """A checkpoint, as transformers reads it."""

    def __init__(
        self,
        folder: Path,
        items: Callable[[str, Any, list[Tensor]], list[Tensor]] | None = None,
        processor: Any = None,
    ) -> None:
        loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        self.model: PreTrainedModel = loaded[0].eval()
        assert not loaded[1]["missing_keys"]
        self.processor = processor or AutoProcessor.from_pretrained(folder)
        self.items = items or (lambda kind, inputs, entries: entries)

    @torch.no_grad()
    def answer(
        self, prompt: str, media: Media, keep: KeepRule, num_tokens: int, compact: bool = False
    ) -> tuple[int, list[int]]:
        """The length of the short prompt, and greedy ids; numbered anew if `compact`."""
        short = self.short_prompt(prompt, media, keep, compact)
        length, ids = short.embeddings.shape[1], []
        for _ in range(num_tokens):
            ids.append(self._next(short))
            short = self._extended(short, ids[-1])
        return length, ids

    def short_prompt(self, prompt: str, media: Media, keep: KeepRule, compact: bool = False) -> Short:
        inputs = self.processor(text=prompt, **arguments(media), return_tensors="pt")
        ids = inputs["input_ids"][0]
        embeddings = self.model.get_input_embeddings()(ids).clone()
        stays, is_visual = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        deepstack: list[Tensor] = []
        for kind, items in media.items():
            if items:
                self._place(kind, inputs, ids, embeddings, stays, is_visual, deepstack, keep)
        positions, next_position = self._positions(inputs)
        if compact:
            next_position = int(stays.sum())
            positions = torch.arange(next_position)[None]
        else:
            positions = positions[..., stays]
        layers = [layer[stays] for layer in deepstack]
        return Short(embeddings[None, stays], positions, next_position, is_visual[None, stays], layers)

    def _place(
        self, kind: str, inputs: Any, ids: Tensor, embeddings: Tensor, stays: Tensor, is_visual: Tensor,
        deepstack: list[Tensor], keep: KeepRule,
    ) -> None:  # fmt: skip
        """Write the visual tokens of a kind to their placeholders, and mark those that go."""
        output = encoded(self.model, kind, inputs)
        entries = [entry.flatten(0, -2) for entry in output["pooler_output"]]
        tokens = self.items(kind, inputs, entries)
        columns = (ids == getattr(self.model.config, f"{kind}_token_id")).nonzero().squeeze(1)
        embeddings[columns] = torch.cat(tokens)
        is_visual[columns] = True
        for number, layer in enumerate(output.get("deepstack_features") or []):
            if number == len(deepstack):
                deepstack.append(torch.zeros_like(embeddings))
            deepstack[number][columns] = layer if isinstance(layer, Tensor) else torch.cat(list(layer))
        for own, item in zip(columns.split([len(item) for item in tokens]), tokens, strict=True):
            stays[own] = False
            stays[own[keep(item)]] = True

    def _positions(self, inputs: Any) -> tuple[Tensor, int]:
        """(1, L), or (3, 1, L) coordinates of the whole prompt, and what follows."""
        find = getattr(self.model.model, "get_rope_index", None)
        if find is None:
            length = inputs["input_ids"].shape[1]
            return torch.arange(length)[None], length
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "mm_token_type_ids")
        known = {name: inputs[name] for name in names if name in inputs}
        positions, _ = find(inputs["input_ids"], **known)
        return positions, int(positions.max()) + 1

    def _next(self, short: Short) -> int:
        # Without a mask, gaps in the positions would be read as borders between packed sequences.
        extra: dict[str, Any] = {"attention_mask": torch.ones_like(short.is_visual, dtype=torch.int64)}
        if short.deepstack:
            features = [layer[short.is_visual[0]] for layer in short.deepstack]
            extra |= {"visual_pos_masks": short.is_visual, "deepstack_visual_embeds": features}
        hidden = self.model.model.language_model(
            inputs_embeds=short.embeddings, position_ids=short.positions, use_cache=False, **extra
        ).last_hidden_state
        return int(self.model.lm_head(hidden[0, -1]).argmax())

    def _extended(self, short: Short, token: int) -> Short:
        """The prompt with one more token of text."""
        embedding = self.model.get_input_embeddings()(torch.tensor([[token]]))
        place = torch.full((*short.positions.shape[:-1], 1), short.next_position)
        return Short(
            torch.cat([short.embeddings, embedding], dim=1),
            torch.cat([short.positions, place], dim=-1),
            short.next_position + 1,
            torch.cat([short.is_visual, torch.zeros(1, 1, dtype=torch.bool)], dim=1),
            [torch.cat([layer, torch.zeros_like(embedding[0])]) for layer in short.deepstack],
        )
