"""Questions about generated scenes, in batches that share encoded images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from divprune.embedded import KINDS, Question, Scene, questions

ANSWER_KINDS = tuple(kind for kind in KINDS if kind != "caption")
"""The kinds with one short answer: they make the mean. A caption is right only if it lists every object."""

Feed = Literal["tokens", "pixels", "nothing"]
"""What a model gets of an image: its visual tokens, its pixels (to encode once more), or nothing."""


@dataclass(frozen=True)
class Batch:
    """Questions about some scenes.

    Attributes:
        questions: the questions.
        with_image: the prompts, without the pixels.
        pixel_values: the images, one a question.
        without_image: the prompts of the same questions about nothing.
        visual_tokens: the images already encoded: one (M, d) entry a question.
        max_new_tokens: room for the answers.
    """

    model: Any
    processor: Any
    questions: list[Question]
    with_image: dict[str, torch.Tensor]
    pixel_values: torch.Tensor
    without_image: dict[str, torch.Tensor]
    visual_tokens: list[torch.Tensor]
    max_new_tokens: int

    @torch.inference_mode()
    def generate(self, feed: Feed) -> list[str]:
        """Return the model's answer to each question, greedily."""
        inputs: dict[str, Any] = dict(self.without_image if feed == "nothing" else self.with_image)
        if feed == "pixels":
            inputs["pixel_values"] = self.pixel_values
        elif feed == "tokens":
            encoded = BaseModelOutputWithPooling()
            encoded["pooler_output"] = self.visual_tokens
            inputs["mm_encoder_outputs"] = {"image": encoded}
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        texts = self.processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


def questions_about(scenes: Sequence[Scene], captions: bool) -> list[tuple[int, Question]]:
    """Return the captions or the other questions about some scenes, each with the place of its scene among them."""
    every = [(place, question) for place, item in enumerate(scenes) for question in questions(item)]
    return [(place, question) for place, question in every if (question.kind == "caption") == captions]


def batches(model: Any, processor: Any, scenes: list[Scene]) -> Iterator[Batch]:
    """Yield the scenes' short questions, then their captions: answered together, captions would hold the others up."""
    pixels = processor.image_processor([item.image for item in scenes], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        encoded = model.base_model.get_image_features(pixels.to(model.device), return_dict=True).pooler_output
    for captions, max_new_tokens in ((False, 6), (True, 48)):
        chosen = questions_about(scenes, captions)
        prompts = [question for _, question in chosen]
        text_only = _tokenized(processor, prompts, None).to(model.device)
        with_image = _tokenized(processor, prompts, [scenes[place].image for place, _ in chosen]).to(model.device)
        pixel_values = with_image.pop("pixel_values")
        visual_tokens = [encoded[place] for place, _ in chosen]
        yield Batch(model, processor, prompts, with_image, pixel_values, text_only, visual_tokens, max_new_tokens)


def _tokenized(processor: Any, prompts: list[Question], images: list[Any] | None) -> Any:
    """Left-padded prompts in the model's chat format, with an image each or with none."""
    image = [{"type": "image"}] if images else []
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [*image, {"type": "text", "text": question.prompt}]}],
            add_generation_prompt=True,
        )
        for question in prompts
    ]
    return processor(images=images, text=texts, padding=True, return_tensors="pt")
