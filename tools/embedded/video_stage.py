"""Training of the embedded video model: projector and language model on generated videos, the tower frozen.

The language loss alone teaches time slowly, so the tokens inside the language model also tell what their object has
done so far, and some heads are shown where to look. The read-outs are thrown away. A first stage leaves most of the
background out, which makes a step several times as fast; the second stage reads whole videos.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaNextVideoForConditionalGeneration

from divprune.embedded.questions import Question
from divprune.embedded.scenes import Split
from divprune.embedded.video_questions import video_questions
from divprune.embedded.videos import NUM_VIDEO_FRAMES, Video, generated_video
from divprune.embedded.vocabulary import VIDEO_WORDS
from tools.embedded.labels import IGNORED
from tools.embedded.language_stage import answer_loss, judge, packed_states
from tools.embedded.packing import PackedBatch, pack
from tools.embedded.tower_stage import draw_batch, patch_features
from tools.embedded.video_attention import answer_sight_loss, first_sight_loss
from tools.embedded.video_labels import TOKEN_LABELS, token_labels
from tools.embedded.video_model import FRAME_TOKENS, VIDEO_PREFIX, VIDEO_TOKENS, pooled

_FIRST_SEED = 3_000_000  # fresh videos: no earlier stage has seen these
_KINDS = {"existence": 1, "count": 1, "color": 1, "motion": 2, "order": 2}
_READ_LAYERS = (1, 2, 3)  # the hidden states that enter these layers are read
_DENSE_SHARE = 0.3  # of the read-outs' loss
_SIGHT_SHARE = 0.5  # of the loss on the heads' attention, either


class Shown(NamedTuple):
    """A video as training remembers it."""

    video: Video
    features: torch.Tensor  # (VIDEO_TOKENS, width) bfloat16, pooled, before the projector
    labels: torch.Tensor  # (len(TOKEN_LABELS), VIDEO_TOKENS) int64


class VideoStage:
    """What the training loop needs."""

    def __init__(
        self,
        model: LlavaNextVideoForConditionalGeneration,
        batch_size: int = 8,
        pool_size: int = 600,
        kept_tokens: int = VIDEO_TOKENS,
    ) -> None:
        """Take how many videos a step has, and of how many the features are remembered.

        Of a video, `kept_tokens` are read in training: those that show objects, and others at random.
        """
        self.name = "video" if kept_tokens == VIDEO_TOKENS else "video-objects"
        self.model, self.batch_size, self.pool_size, self.kept_tokens = model, batch_size, pool_size, kept_tokens
        self.pool: dict[tuple[Split, int], Shown] = {}
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, sum(TOKEN_LABELS.values())) for _ in _READ_LAYERS)
        parts = {"projector": model.model.multi_modal_projector, "language": model.model.language_model}
        self.trained = nn.ModuleDict({**parts, "lm_head": model.lm_head, "heads": self.heads})

    def loss(self, step: int) -> torch.Tensor:
        """Return the answers' cross entropy on the step's videos, the read-outs' and that of the heads' attention."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        shown = [self._shown("train", place % self.pool_size) for place in places]
        # Each round of the pool asks others.
        rows = [video_questions(s.video, _KINDS, p // self.pool_size) for s, p in zip(shown, places, strict=True)]
        features, labels = _stacked(shown)
        kept = kept_places(labels, self.kept_tokens, step)
        batch, logits, states = self.read(features, rows, kept)
        labels = labels.gather(2, kept[:, None].expand(-1, len(TOKEN_LABELS), -1))
        sights = first_sight_loss(self.model, states, batch, labels)
        sights = sights + answer_sight_loss(self.model, states, batch, labels, rows)
        return answer_loss(logits, batch) + _DENSE_SHARE * self._dense_loss(states, labels) + _SIGHT_SHARE * sights

    def read(
        self, features: torch.Tensor, rows: list[list[Question]], kept: torch.Tensor | None = None
    ) -> tuple[PackedBatch, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the packed batch, the logits behind the videos, and all hidden states.

        Args:
            features: (batch, VIDEO_TOKENS, width) before the projector.
            rows: the questions.
            kept: (batch, n) int64, ascending: the tokens that are read, at their own positions; None for all.
        """
        if kept is None or kept.shape[1] == VIDEO_TOKENS:
            batch = pack(rows, VIDEO_PREFIX, VIDEO_WORDS)
        else:
            batch = _at_own_positions(pack(rows, VIDEO_PREFIX[: kept.shape[1] - VIDEO_TOKENS], VIDEO_WORDS), kept)
            features = features.gather(1, kept[:, :, None].expand(-1, -1, features.shape[2]))
        with torch.autocast("cpu", torch.bfloat16):
            states = packed_states(self.model, self.model.model.multi_modal_projector(features), batch)
            return batch, self.model.lm_head(states[-1][:, batch.num_prefix :]), states

    @torch.no_grad()
    def _shown(self, split: Split, place: int) -> Shown:
        """Draw a video and compute the frozen tower's features the first time."""
        if (split, place) not in self.pool:
            video = generated_video(_FIRST_SEED + place, split)
            with torch.autocast("cpu", torch.bfloat16):
                features = pooled(patch_features(self.model, draw_batch(list(video.scenes))))
            self.pool[split, place] = Shown(video, features.flatten(0, 1).bfloat16(), token_labels(video))
        return self.pool[split, place]

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
    def scores(self, number: int = 96, chunk: int = 16) -> dict[str, float]:
        """Fractions right on validation: questions whose every answer token is the likeliest, and the read-outs.

        Those that begin with one_frame are of videos whose middle frame stands for all.
        """
        right: dict[str, list[bool]] = {}
        for first in range(0, number, chunk):
            shown = [self._shown("validation", place) for place in range(first, first + chunk)]
            rows = [video_questions(each.video, 2) for each in shown]
            features, labels = _stacked(shown)
            batch, logits, states = self.read(features, rows)
            for kind, is_right in judge(logits, batch, rows):
                right.setdefault(kind, []).append(is_right)
            reads = self._read_outs(states, VIDEO_TOKENS)[-1]
            for name, read, target in zip(TOKEN_LABELS, reads, labels.unbind(1), strict=True):
                right.setdefault(f"token_{name}", []).extend((read.argmax(-1) == target)[target != IGNORED].tolist())
            batch, logits, _ = self.read(one_frame(features), rows)
            for kind, is_right in judge(logits, batch, rows):
                right.setdefault(f"one_frame_{kind}", []).append(is_right)
        return {kind: sum(marks) / len(marks) for kind, marks in right.items()}


def _stacked(shown: Sequence[Shown]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([each.features for each in shown]).float(), torch.stack([each.labels for each in shown])


def one_frame(features: torch.Tensor, frame: int = NUM_VIDEO_FRAMES // 2) -> torch.Tensor:
    """(batch, VIDEO_TOKENS, width) to the same with one frame in the place of all."""
    return features[:, frame * FRAME_TOKENS : (frame + 1) * FRAME_TOKENS].repeat(1, NUM_VIDEO_FRAMES, 1)


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
