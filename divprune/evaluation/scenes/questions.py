"""Questions about generated images or videos, in batches that share what the encoder made of these."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from divprune.embedded import Question
from divprune.evaluation.likelihoods import answer_mask, judge_answers
from divprune.evaluation.scenes.bench import IMAGE_BENCH, AnswerGroup, SceneBench

Feed = Literal["tokens", "placed", "pixels", "nothing"]
"""What a model gets of an image or video: its visual tokens, these with the places that follow from its pixels, its
pixels (to encode once more), or nothing."""

_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


@dataclass(frozen=True)
class Batch:
    """Questions about some images or videos.

    Attributes:
        bench: what they are of.
        questions: the questions.
        with_media: the prompts, without the pixels.
        pixel_values: the images or videos, one a question.
        without_media: the prompts of the same questions about nothing.
        visual_tokens: the images or videos already encoded: one (M, d) entry a question.
        max_new_tokens: room for the answers.
    """

    bench: SceneBench
    model: Any
    processor: Any
    questions: list[Question]
    with_media: dict[str, torch.Tensor]
    pixel_values: torch.Tensor
    without_media: dict[str, torch.Tensor]
    visual_tokens: list[torch.Tensor]
    max_new_tokens: int

    def generate(self, feed: Feed) -> list[str]:
        """Return the model's answer to each question, greedily."""
        texts = self.processor.batch_decode(self.answer_ids(feed), skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.inference_mode()
    def answer_ids(self, feed: Feed) -> torch.Tensor:
        """Return the answers as token ids, (questions, n) int64, filled up behind."""
        with self._fed(feed) as inputs:
            output: torch.Tensor = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        return output[:, inputs["input_ids"].shape[1] :]

    def judged(self, feed: Feed, answers: torch.Tensor) -> list[float]:
        """Tell how likely the model finds answers, given as token ids: mean log-likelihoods per token, in nats."""
        with self._fed(feed) as inputs:
            return judge_answers(self.model, inputs, answers, answer_mask(answers, self.model))

    def encoded(self) -> BaseModelOutputWithPooling:
        """Return the visual tokens as the model's encoder gives them."""
        output = BaseModelOutputWithPooling()
        output["pooler_output"] = self.visual_tokens
        return output

    @contextmanager
    def _fed(self, feed: Feed) -> Iterator[dict[str, Any]]:
        """Give what `generate` takes, inside the block."""
        inputs: dict[str, Any] = dict(self.without_media if feed == "nothing" else self.with_media)
        if feed in ("pixels", "placed"):
            inputs[_PIXELS[self.bench.modality]] = self.pixel_values
        elif feed == "tokens":
            inputs["mm_encoder_outputs"] = {self.bench.modality: self.encoded()}
        with self._encoder_skipped() if feed == "placed" else nullcontext():
            yield inputs

    @contextmanager
    def _encoder_skipped(self) -> Iterator[None]:
        """Let the encoder of videos answer with the visual tokens that are there, inside the block."""

        def encoder(pixel_values_videos: torch.Tensor, return_dict: bool = True) -> BaseModelOutputWithPooling:
            return self.encoded()

        self.model.base_model.get_video_features = encoder
        try:
            yield
        finally:
            del self.model.base_model.get_video_features


def questions_about(
    shown: Sequence[Any], part: AnswerGroup, bench: SceneBench = IMAGE_BENCH
) -> list[tuple[int, Question]]:
    """Return a part's questions about some images or videos, each with the place of its own among them."""
    every = [(place, question) for place, item in enumerate(shown) for question in bench.ask(item)]
    return [(place, question) for place, question in every if question.kind in part.kinds]


def batches(model: Any, processor: Any, shown: Sequence[Any], bench: SceneBench = IMAGE_BENCH) -> Iterator[Batch]:
    """Yield the questions about some images or videos, part by part."""
    media = [bench.media(item) for item in shown]
    encoded = _encoded(model, processor, media, bench)
    for part in bench.parts:
        chosen = questions_about(shown, part, bench)
        prompts = [question for _, question in chosen]
        text_only = _tokenized(processor, prompts, None, bench).to(model.device)
        with_media = _tokenized(processor, prompts, [media[place] for place, _ in chosen], bench).to(model.device)
        pixel_values = with_media.pop(_PIXELS[bench.modality])
        visual_tokens = [encoded[place] for place, _ in chosen]
        yield Batch(
            bench, model, processor, prompts, with_media, pixel_values, text_only, visual_tokens, part.max_new_tokens
        )


@torch.inference_mode()
def _encoded(model: Any, processor: Any, media: list[Any], bench: SceneBench) -> list[torch.Tensor]:
    """Return the visual tokens (M, d) of each image or video."""
    preprocess = processor.image_processor if bench.modality == "image" else processor.video_processor
    pixels = preprocess(media, return_tensors="pt")[_PIXELS[bench.modality]].to(model.device)
    encoder = getattr(model.base_model, f"get_{bench.modality}_features")
    # transformers 5.18 gives the tokens of videos frame by frame.
    return [tokens.flatten(0, -2) for tokens in encoder(pixels, return_dict=True).pooler_output]


def _tokenized(processor: Any, prompts: list[Question], media: list[Any] | None, bench: SceneBench) -> Any:
    """Left-padded prompts in the model's chat format, with an image or video each or with none."""
    content = [{"type": bench.modality}] if media else []
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": question.prompt}]}],
            add_generation_prompt=True,
        )
        for question in prompts
    ]
    return processor(**{f"{bench.modality}s": media}, text=texts, padding=True, return_tensors="pt")
