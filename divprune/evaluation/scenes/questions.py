"""The built-in benchmark: questions about generated scenes, answered under every pruning setting.

Every picture is encoded once; each setting then chooses among the same visual tokens. The unpruned setting and one with
the picture withheld belong to every table: the first is the ceiling, the second what the words alone give away.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from divprune.budget import budget
from divprune.config import Positions
from divprune.embedded import KINDS, Question, Scene, questions, scene
from divprune.huggingface import prune
from divprune.methods import Method, RandomTokens

ANSWER_KINDS = tuple(kind for kind in KINDS if kind != "caption")
"""The kinds with one short answer: they make the mean. A caption is right only if it lists every object."""

Feed = Literal["tokens", "pixels", "nothing"]
"""What a model gets of a picture: its visual tokens, its pixels (to encode once more), or nothing."""


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        method: the pruning method; None for no pruning.
        keep_ratio: share of the visual tokens kept; 0 withholds the picture, 1 keeps all.
        positions: position ids of the kept tokens.
    """

    method: Method | None = None
    keep_ratio: float = 1.0
    positions: Positions = "compact"

    @property
    def name(self) -> str:
        """How tables call it."""
        if self.method is None:
            return "picture withheld" if self.keep_ratio == 0 else "unpruned"
        return self.method.name

    def pruning(self, model: PreTrainedModel, batch: int) -> AbstractContextManager[Any]:
        """Prunes the model for one batch; random draws differ between batches."""
        if self.method is None:
            return nullcontext()
        method = self.method
        if isinstance(method, RandomTokens):
            method = replace(method, seed=method.seed * 1_000_003 + batch)
        return prune(model, method, keep_ratio=self.keep_ratio, positions=self.positions)


class Tally:
    """Right answers and questions of one setting, by kind."""

    def __init__(self, setting: Setting) -> None:
        """Nothing asked yet."""
        self.setting = setting
        self.num_right: Counter[str] = Counter()
        self.num_questions: Counter[str] = Counter()

    def add(self, question: Question, said: str) -> None:
        """Counts one answer; it is right if it is, word for word, the expected one."""
        self.num_questions[question.kind] += 1
        self.num_right[question.kind] += said == question.answer

    def row(self, num_visual_tokens: int) -> dict[str, Any]:
        """The setting and its accuracies in percent, ready for a record."""
        setting = self.setting
        percent = {kind: 100 * self.num_right[kind] / max(1, self.num_questions[kind]) for kind in KINDS}
        kept = budget(num_visual_tokens, keep_ratio=setting.keep_ratio) if setting.keep_ratio else 0
        return {
            "method": setting.name,
            "positions": setting.positions if setting.method else None,
            "seed": getattr(setting.method, "seed", None),
            "keep_ratio": setting.keep_ratio,
            "num_kept": kept,
            "num_questions": dict(self.num_questions),
            **{f"{kind}_percent": percent[kind] for kind in KINDS},
            "mean_percent": fmean(percent[kind] for kind in ANSWER_KINDS),
        }


def settings(
    methods: Sequence[Method], keep_ratios: Sequence[float], positions: Sequence[Positions], seeds: Sequence[int]
) -> list[Setting]:
    """Every combination, random methods once a seed, led by the unpruned and the withheld row."""
    rows = [Setting(), Setting(keep_ratio=0.0)]
    for place in positions:
        for keep_ratio in keep_ratios:
            for method in methods:
                drawn = [replace(method, seed=seed) for seed in seeds] if isinstance(method, RandomTokens) else [method]
                rows += [Setting(one, keep_ratio, place) for one in drawn]
    return rows


def evaluate_scenes(
    model: PreTrainedModel,
    processor: Any,
    rows: Sequence[Setting],
    num_scenes: int,
    first_seed: int = 0,
    scenes_per_batch: int = 8,
) -> list[dict[str, Any]]:
    """Asks about held-out scenes under every setting.

    Args:
        model: a model that answers about scenes, such as the embedded one.
        processor: its processor.
        rows: the settings.
        num_scenes: how many test scenes.
        first_seed: the first scene's seed.
        scenes_per_batch: scenes whose questions are answered together.

    Returns:
        One row a setting: see `Tally.row`.
    """
    tallies = [Tally(setting) for setting in rows]
    seeds = range(first_seed, first_seed + num_scenes)
    num_visual_tokens = 0
    with tqdm(total=num_scenes * len(rows), desc="answering", unit="scene", disable=None) as progress:
        for number, start in enumerate(range(0, num_scenes, scenes_per_batch)):
            scenes = [scene(seed, "test") for seed in seeds[start : start + scenes_per_batch]]
            for batch in batches(model, processor, scenes):
                num_visual_tokens = len(batch.visual_tokens[0])
                for tally in tallies:
                    for question, said in batch.answers(tally.setting, number):
                        tally.add(question, said)
            progress.update(len(scenes) * len(rows))
    return [tally.row(num_visual_tokens) for tally in tallies]


@dataclass(frozen=True)
class Batch:
    """Questions about some scenes.

    Attributes:
        asked: the questions.
        with_picture: the prompts, without the pixels.
        pixel_values: the pictures, one a question.
        without_picture: the prompts of the same questions about nothing.
        visual_tokens: the pictures already encoded: one (M, d) entry a question.
        max_new_tokens: room for the answers.
    """

    model: Any
    processor: Any
    asked: list[Question]
    with_picture: dict[str, torch.Tensor]
    pixel_values: torch.Tensor
    without_picture: dict[str, torch.Tensor]
    visual_tokens: list[torch.Tensor]
    max_new_tokens: int

    def answers(self, setting: Setting, number: int) -> Iterator[tuple[Question, str]]:
        """Each question and what the model says, greedily."""
        with setting.pruning(self.model, number):
            texts = self.say("tokens" if setting.keep_ratio else "nothing")
        return zip(self.asked, texts, strict=True)

    @torch.inference_mode()
    def say(self, feed: Feed) -> list[str]:
        """What the model says to each question, greedily."""
        inputs: dict[str, Any] = dict(self.without_picture if feed == "nothing" else self.with_picture)
        if feed == "pixels":
            inputs["pixel_values"] = self.pixel_values
        elif feed == "tokens":
            encoded = BaseModelOutputWithPooling()
            encoded["pooler_output"] = self.visual_tokens
            inputs["mm_encoder_outputs"] = {"image": encoded}
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        texts = self.processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


def asked_about(scenes: Sequence[Scene], captions: bool) -> list[tuple[int, Question]]:
    """The captions or the other questions about some scenes, each with the place of its scene among them."""
    asked = [(place, question) for place, item in enumerate(scenes) for question in questions(item)]
    return [(place, question) for place, question in asked if (question.kind == "caption") == captions]


def batches(model: Any, processor: Any, scenes: list[Scene]) -> Iterator[Batch]:
    """The scenes' short questions, then their captions: answered together, captions would hold the others up."""
    pixels = processor.image_processor([item.image for item in scenes], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        encoded = model.base_model.get_image_features(pixels.to(model.device), return_dict=True).pooler_output
    for captions, max_new_tokens in ((False, 6), (True, 48)):
        chosen = asked_about(scenes, captions)
        prompts = [question for _, question in chosen]
        text_only = _tokenized(processor, prompts, None).to(model.device)
        pictures = _tokenized(processor, prompts, [scenes[place].image for place, _ in chosen]).to(model.device)
        pixel_values = pictures.pop("pixel_values")
        visual_tokens = [encoded[place] for place, _ in chosen]
        yield Batch(model, processor, prompts, pictures, pixel_values, text_only, visual_tokens, max_new_tokens)


def _tokenized(processor: Any, asked: list[Question], pictures: list[Any] | None) -> Any:
    """Left-padded prompts in the model's chat format, with a picture each or with none."""
    image = [{"type": "image"}] if pictures else []
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [*image, {"type": "text", "text": question.prompt}]}],
            add_generation_prompt=True,
        )
        for question in asked
    ]
    return processor(images=pictures, text=texts, padding=True, return_tensors="pt")
