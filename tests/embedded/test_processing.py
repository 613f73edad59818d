"""The processor: what the training code assumes about tokens and pixels is what the saved processor does."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaProcessor

from divprune.embedded import questions, scene
from divprune.embedded.vocabulary import WORDS
from tools.embedded.model import NUM_VISUAL_TOKENS
from tools.embedded.packing import PREFIX_IDS, word_ids
from tools.embedded.processing import build_processor
from tools.embedded.tower_stage import draw_batch


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return build_processor()


def test_text_survives_a_round_trip(processor: LlavaProcessor) -> None:
    for seed in range(40):
        for question in questions(scene(seed), 2):
            ids = processor.tokenizer(question.answer)["input_ids"]
            assert ids[0] == WORDS.index("<s>")
            assert processor.decode(ids, skip_special_tokens=True) == question.answer


def test_case_and_punctuation_do_not_matter(processor: LlavaProcessor) -> None:
    tokenizer = processor.tokenizer
    expected = [WORDS.index(word) for word in ("is", "there", "a", "red", "star", "?")]
    for text in ("Is there a red star?", "  IS THERE a Red star ?  ", "is there\na red star?"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected


def test_unknown_words_become_unknown_tokens(processor: LlavaProcessor) -> None:
    ids = processor.tokenizer("a giraffe's star", add_special_tokens=False)["input_ids"]
    assert ids.count(WORDS.index("<unk>")) == 3
    assert ids[-1] == WORDS.index("star")


def test_training_splits_words_like_the_tokenizer(processor: LlavaProcessor) -> None:
    for seed in range(40):
        for question in questions(scene(seed, "train"), 3):
            for text in (question.prompt + " ASSISTANT:", question.answer):
                assert word_ids(text) == processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_chat_template_gives_the_training_prefix(processor: LlavaProcessor) -> None:
    content = [{"type": "image", "image": scene(1).image}, {"type": "text", "text": "How many stars are there?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    expected = [*PREFIX_IDS, *word_ids("How many stars are there? ASSISTANT:")]
    assert inputs["input_ids"].tolist() == [expected]
    assert expected.count(WORDS.index("<image>")) == NUM_VISUAL_TOKENS


def test_pixels_equal_those_of_training(processor: LlavaProcessor) -> None:
    scenes = [scene(seed) for seed in range(4)]
    inputs = processor(images=[one.image for one in scenes], text=["<image>"] * 4, return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], draw_batch(scenes), rtol=0, atol=1e-5)


def test_any_picture_size_is_accepted(processor: LlavaProcessor) -> None:
    photo = Image.fromarray(np.zeros((300, 451, 3), dtype=np.uint8))
    inputs = processor(images=photo, text="<image> what is this?", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 128, 128)
