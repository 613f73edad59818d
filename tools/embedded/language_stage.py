"""Training stages 2 and 3: projector and language model on a frozen tower, then everything together at a low rate."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedModel

from divprune.embedded.questions import Question, questions
from divprune.embedded.scenes import Scene, scene
from tools.embedded.labels import patch_labels
from tools.embedded.packing import NOT_AN_ANSWER, PackedBatch, pack
from tools.embedded.tower_stage import TowerHeads, draw_batch, patch_features, tower_logits, tower_loss

_FIRST_SEED = 1_000_000  # fresh scenes: the tower has not seen these
_PER_KIND = {"existence": 1, "count": 6, "color": 1, "shape": 1, "position": 2}  # the slower to learn, the more
_DENSE_SHARE = 0.1  # of stage 1's loss in stage 3


class Cached(NamedTuple):
    """What stage 2 keeps of a scene instead of drawing it again."""

    scene: Scene
    patch_features: torch.Tensor  # (NUM_VISUAL_TOKENS, width) bfloat16


def packed_logits(model: LlavaForConditionalGeneration, features: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Logits of a packed batch.

    Args:
        model: the whole model.
        features: (batch, NUM_VISUAL_TOKENS, width), before the projector.
        batch: the packed questions.

    Returns:
        (batch, L - num_prefix, vocabulary): those behind the image.
    """
    states = packed_states(model, model.model.multi_modal_projector(features), batch)
    logits: torch.Tensor = model.lm_head(states[-1][:, batch.num_prefix :])
    return logits


def packed_states(model: PreTrainedModel, visual_tokens: torch.Tensor, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
    """Run the language model on a packed batch.

    Args:
        model: the whole model.
        visual_tokens: (batch, M, width), after the projector; the prefix ends with their placeholders.
        batch: the packed questions.

    Returns:
        (batch, L, width) hidden states: those that enter each layer, and behind the last one's norm.
    """
    embedded = model.get_input_embeddings()(batch.input_ids)
    first = batch.num_prefix - visual_tokens.shape[1]
    embedded = torch.cat(
        [embedded[:, :first], visual_tokens.to(embedded.dtype), embedded[:, batch.num_prefix :]], dim=1
    )
    output = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        output_hidden_states=True,
    )
    states: tuple[torch.Tensor, ...] = output.hidden_states
    return states


class LanguageStage:
    """What the training loop needs of stages 2 (tower frozen, its features remembered) and 3 (everything is trained).

    Stage 3 is told by `heads`, stage 1's read-outs: their loss goes on, so that the tower keeps what it learnt.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        batch_size: int = 32,
        pool_size: int = 24_000,
        heads: TowerHeads | None = None,
    ) -> None:
        self.name = "whole" if heads else "language"
        self.model = model
        self.batch_size = batch_size
        self.pool_size = pool_size
        self.heads = heads
        self.pool: dict[int, Cached] = {}
        parts = {"projector": model.model.multi_modal_projector, "language": model.model.language_model}
        self.trained = nn.ModuleDict({**parts, "lm_head": model.lm_head})
        if heads:
            self.trained.update({"tower": model.model.vision_tower, "heads": heads})

    def loss(self, step: int) -> torch.Tensor:
        """Return the answers' weighted cross entropy on the step's own scenes."""
        first = step * self.batch_size
        places = range(first, first + self.batch_size)
        scenes, features, dense_loss = self._fresh(places) if self.heads else self._remembered(places)
        # Each round of the pool asks other questions.
        streams = [place // self.pool_size for place in places]
        batch = pack([questions(item, _PER_KIND, stream) for item, stream in zip(scenes, streams, strict=True)])
        with torch.autocast("cpu", torch.bfloat16):
            logits = packed_logits(self.model, features, batch)
        return answer_loss(logits, batch) + _DENSE_SHARE * dense_loss

    def _fresh(self, places: Iterable[int]) -> tuple[list[Scene], torch.Tensor, torch.Tensor]:
        """Scenes that no earlier stage has seen, their features with gradients, and stage 1's loss on them."""
        if self.heads is None:
            raise ValueError("heads must be given for training the tower, got None")
        scenes = [scene(2 * _FIRST_SEED + place, "train") for place in places]
        logits, features = tower_logits(self.model, self.heads, draw_batch(scenes))
        return scenes, features, tower_loss(logits, patch_labels(scenes))

    @torch.no_grad()
    def _remembered(self, places: Iterable[int]) -> tuple[list[Scene], torch.Tensor, torch.Tensor]:
        """Return the frozen tower's features, computed the first time round the pool."""
        seeds = [_FIRST_SEED + place % self.pool_size for place in places]
        missing = [scene(seed, "train") for seed in seeds if seed not in self.pool]
        if missing:
            with torch.autocast("cpu", torch.bfloat16):
                features = patch_features(self.model, draw_batch(missing)).bfloat16()
            self.pool |= {item.seed: Cached(item, row) for item, row in zip(missing, features, strict=True)}
        found = [self.pool[seed] for seed in seeds]
        features = torch.stack([item.patch_features for item in found]).float()
        return [item.scene for item in found], features, torch.zeros(())

    @torch.no_grad()
    def scores(self, num_scenes: int = 192, chunk: int = 32) -> dict[str, float]:
        """Per kind, the fraction of validation questions whose every answer token is the likeliest one."""
        right: dict[str, list[bool]] = {}
        for first in range(0, num_scenes, chunk):
            scenes = [scene(seed, "validation") for seed in range(first, first + chunk)]
            rows = [questions(item, 3) for item in scenes]
            with torch.autocast("cpu", torch.bfloat16):
                logits = packed_logits(self.model, patch_features(self.model, draw_batch(scenes)), pack(rows))
            for kind, is_right in judge(logits, pack(rows), rows):
                right.setdefault(kind, []).append(is_right)
        return {kind: sum(marks) / len(marks) for kind, marks in right.items()}


def answer_loss(logits: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Weighted mean over answer tokens and EOS; logits (batch, L - num_prefix, vocabulary)."""
    behind = slice(batch.num_prefix, None)
    targets, weights = batch.targets[:, behind], batch.weights[:, behind] * (batch.targets[:, behind] >= 0)
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=NOT_AN_ANSWER, reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


def judge(logits: torch.Tensor, batch: PackedBatch, rows: list[list[Question]]) -> list[tuple[str, bool]]:
    """Kind and rightness of every question."""
    targets, index = (field[:, batch.num_prefix :] for field in (batch.targets, batch.question_index))
    wrong = (logits.argmax(-1) != targets) & (targets != NOT_AN_ANSWER)
    return [
        (question.kind, not bool(wrong[row][index[row] == place].any()))
        for row, asked in enumerate(rows)
        for place, question in enumerate(asked)
    ]
