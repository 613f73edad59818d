"""Training of the embedded video model: projector and language model on videos mixed with images, the tower frozen.

Videos alone would make it forget images; the language loss alone teaches time slowly, so the tokens inside the language
model also tell what their object has done so far. These read-outs are thrown away. A first stage leaves most of the
background out, which makes a step several times as fast; the second stage reads whole videos.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaNextVideoForConditionalGeneration

from divprune.embedded.questions import Question, questions
from divprune.embedded.scenes import Scene, Split, scene
from divprune.embedded.video_questions import video_questions
from divprune.embedded.videos import generated_video
from divprune.embedded.vocabulary import VIDEO_WORDS
from divprune.methods.base import Modality
from tools.embedded.labels import IGNORED
from tools.embedded.language_stage import answer_loss, judge, packed_states
from tools.embedded.packing import PackedBatch, pack
from tools.embedded.tower_stage import draw_batch, patch_features
from tools.embedded.video_attention import LAYER, first_sight_loss
from tools.embedded.video_labels import TOKEN_LABELS, token_labels
from tools.embedded.video_model import IMAGE_PREFIX, VIDEO_PREFIX, VIDEO_TOKENS, image_tokens, pooled

_FIRST_SEED = 3_000_000  # fresh scenes and videos: no earlier stage has seen these
_VIDEO_KINDS = {"existence": 1, "count": 3, "color": 1, "motion": 2, "order": 2}
_IMAGE_KINDS = {"existence": 1, "count": 4, "color": 1, "shape": 1, "position": 2}
_READ_LAYERS = (1, 2, 3)  # the hidden states that enter these layers are read
_DENSE_SHARE = 0.4  # of the read-outs' loss
_SIGHT_SHARE = 0.5  # of the loss on one head's attention


class Material(NamedTuple):
    """What a batch is made of."""

    features: torch.Tensor  # (batch, tokens, width) before the projector; those of videos pooled
    rows: list[list[Question]]
    labels: torch.Tensor  # of videos: (batch, len(TOKEN_LABELS), VIDEO_TOKENS) int64; of images empty


class VideoStage:
    """What the training loop needs."""

    def __init__(
        self,
        model: LlavaNextVideoForConditionalGeneration,
        videos: int = 8,
        images: int = 4,
        pool_size: int = 1000,
        kept_tokens: int = VIDEO_TOKENS,
    ) -> None:
        """Take how many videos and images a step has, and of how many the features are remembered.

        Of a video, `kept_tokens` are read in training: those that show objects, and others at random.
        """
        self.name = "video" if kept_tokens == VIDEO_TOKENS else "video-objects"
        self.model, self.videos, self.images, self.pool_size = model, videos, images, pool_size
        self.kept_tokens = kept_tokens
        self.pool: dict[tuple[Modality, Split, int], torch.Tensor] = {}
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, sum(TOKEN_LABELS.values())) for _ in _READ_LAYERS)
        parts = {"projector": model.model.multi_modal_projector, "language": model.model.language_model}
        self.trained = nn.ModuleDict({**parts, "lm_head": model.lm_head, "heads": self.heads})
        self.trained.register_parameter("image_newline", model.model.image_newline)

    def loss(self, step: int) -> torch.Tensor:
        """Return the answers' cross entropy on the step's videos and images, and the read-outs' on its videos."""
        shown = self.video_material(range(step * self.videos, (step + 1) * self.videos))
        kept = kept_places(shown.labels, self.kept_tokens, step)
        batch, logits, states = self.read("video", shown.features, shown.rows, kept)
        labels = shown.labels.gather(2, kept[:, None].expand(-1, len(TOKEN_LABELS), -1))
        total = answer_loss(logits, batch) + _DENSE_SHARE * self._dense_loss(states, labels)
        total = total + _SIGHT_SHARE * first_sight_loss(self.model, states[LAYER], batch, labels)
        seen = self.image_material(range(step * self.images, (step + 1) * self.images))
        batch, logits, _ = self.read("image", seen.features, seen.rows)
        return total + self.images / self.videos * answer_loss(logits, batch)

    def video_material(self, places: Sequence[int], split: Split = "train", per_kind: int | None = None) -> Material:
        """Draw videos, their features, questions and labels; each round of the pool asks others."""
        shown = [generated_video(_FIRST_SEED + place % self.pool_size, split) for place in places]
        features = [self._features(("video", split, each.seed), lambda each=each: each.scenes) for each in shown]
        rows = [
            video_questions(each, per_kind or _VIDEO_KINDS, place // self.pool_size)
            for each, place in zip(shown, places, strict=True)
        ]
        labels = torch.stack([token_labels(each) for each in shown])
        return Material(torch.stack(features).float(), rows, labels)

    def image_material(self, places: Sequence[int], split: Split = "train", per_kind: int | None = None) -> Material:
        """Draw images, their features and questions."""
        seen = [scene(_FIRST_SEED + place % self.pool_size, split) for place in places]
        features = [self._features(("image", split, each.seed), lambda each=each: (each,)) for each in seen]
        rows = [
            questions(each, per_kind or _IMAGE_KINDS, place // self.pool_size)
            for each, place in zip(seen, places, strict=True)
        ]
        return Material(torch.stack(features).float(), rows, torch.empty(0))

    def read(
        self, modality: Modality, features: torch.Tensor, rows: list[list[Question]], kept: torch.Tensor | None = None
    ) -> tuple[PackedBatch, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the packed batch, the logits behind the images or videos, and all hidden states.

        Args:
            modality: what is read.
            features: (batch, tokens, width) before the projector.
            rows: the questions.
            kept: (batch, n) int64, ascending: the tokens of videos that are read, at their own positions; None for all.
        """
        if kept is None:
            batch = pack(rows, VIDEO_PREFIX if modality == "video" else IMAGE_PREFIX, VIDEO_WORDS)
        else:
            batch = _at_own_positions(
                pack(rows, VIDEO_PREFIX[: kept.shape[1] - VIDEO_TOKENS or None], VIDEO_WORDS), kept
            )
            features = features.gather(1, kept[:, :, None].expand(-1, -1, features.shape[2]))
        with torch.autocast("cpu", torch.bfloat16):
            if modality == "video":
                visual_tokens = self.model.model.multi_modal_projector(features)
            else:
                visual_tokens = image_tokens(self.model, features)
            states = packed_states(self.model, visual_tokens, batch)
            return batch, self.model.lm_head(states[-1][:, batch.num_prefix :]), states

    @torch.no_grad()
    def _features(self, key: tuple[Modality, Split, int], draw: Callable[[], Sequence[Scene]]) -> torch.Tensor:
        """(tokens, width) bfloat16 of the frozen tower, computed the first time; those of a video pooled."""
        if key not in self.pool:
            with torch.autocast("cpu", torch.bfloat16):
                features = patch_features(self.model, draw_batch(list(draw())))
            self.pool[key] = (pooled(features) if key[0] == "video" else features).flatten(0, 1).bfloat16()
        return self.pool[key]

    def _dense_loss(self, states: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for read in self._read_outs(states, labels.shape[2]):
            for logits, target in zip(read, labels.unbind(1), strict=True):
                total = total + functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED)
        return total / len(_READ_LAYERS)

    def _read_outs(self, states: tuple[torch.Tensor, ...], num_tokens: int) -> list[tuple[torch.Tensor, ...]]:
        """Logits (batch, num_tokens, classes) of each label, for each layer that is read."""
        first, found = len(VIDEO_PREFIX) - VIDEO_TOKENS, []
        for head, layer in zip(self.heads, _READ_LAYERS, strict=True):
            visual = states[layer][:, first : first + num_tokens].float()
            found.append(
                head(functional.rms_norm(visual, visual.shape[-1:])).split(list(TOKEN_LABELS.values()), dim=-1)
            )
        return found

    @torch.no_grad()
    def scores(self, number: int = 64, chunk: int = 16) -> dict[str, float]:
        """Fractions right on validation: questions whose every answer token is the likeliest, and the read-outs."""
        right: dict[str, list[bool]] = {}
        for first in range(0, number, chunk):
            shown = self.video_material(range(first, first + chunk), "validation", 2)
            batch, logits, states = self.read("video", shown.features, shown.rows)
            for kind, is_right in judge(logits, batch, shown.rows):
                right.setdefault(f"video_{kind}", []).append(is_right)
            reads = self._read_outs(states, VIDEO_TOKENS)[-1]
            for name, read, target in zip(TOKEN_LABELS, reads, shown.labels.unbind(1), strict=True):
                right.setdefault(f"token_{name}", []).extend((read.argmax(-1) == target)[target != IGNORED].tolist())
            seen = self.image_material(range(first, first + chunk), "validation", 2)
            batch, logits, _ = self.read("image", seen.features, seen.rows)
            for kind, is_right in judge(logits, batch, seen.rows):
                right.setdefault(kind, []).append(is_right)
        return {kind: sum(marks) / len(marks) for kind, marks in right.items()}


def kept_places(labels: torch.Tensor, number: int, seed: int) -> torch.Tensor:
    """Choose tokens of videos: first those with labels, then others, at random among either.

    Args:
        labels: (batch, len(TOKEN_LABELS), VIDEO_TOKENS) int64.
        number: how many of each video.
        seed: of the draw.

    Returns:
        (batch, number) int64, ascending.
    """
    draw = torch.rand(labels[:, 0].shape, generator=torch.Generator().manual_seed(seed))
    return ((labels[:, 0] != IGNORED) + draw).topk(number, dim=1).indices.sort(dim=1).values


def _at_own_positions(batch: PackedBatch, kept: torch.Tensor) -> PackedBatch:
    """Give the kept tokens the positions that they have in the whole video, and the questions those behind it."""
    first, last = batch.num_prefix - kept.shape[1], batch.num_prefix
    behind = batch.position_ids[:, last:] + (VIDEO_TOKENS - kept.shape[1])
    positions = torch.cat([batch.position_ids[:, :first], first + kept, behind], dim=1)
    return replace(batch, position_ids=positions)
