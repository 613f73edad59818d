"""Encoders that are called in a way of their own, and media that a family is not pruned with."""

import pytest
import torch

from divprune import DivPrune, attach, prune
from divprune.budget import budget
from divprune.errors import PruningError, UnsupportedModelError
from tests.support.models.every_family import CASES, VIDEO, features


def test_tokens_that_the_processor_has_compressed_away_are_not_expected() -> None:
    case = CASES["video_llama_3"]
    model = case.build()
    media = case.media(model, "video", [1])
    count = len(features(case, model, "video", media)[0])
    stays = torch.arange(count) % 3 != 1
    ids = torch.tensor([[1, 5, *[VIDEO] * int(stays.sum()), 6, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "video_compression_mask": stays, **media}
    expected = model(**inputs).logits
    with prune(model, DivPrune(), keep_ratio=1.0):
        assert torch.equal(model(**inputs).logits, expected)
    with prune(model, DivPrune(), keep_ratio=0.5) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.last.items[0].num_visual_tokens == int(stays.sum())
    assert pruning.last.num_kept == budget(int(stays.sum()), keep_ratio=0.5)


def test_videos_are_refused_where_only_pictures_are_pruned() -> None:
    model = CASES["aria"].build()
    ids = torch.tensor([[1, 5, VIDEO, 6]])
    with (
        prune(model, DivPrune(), keep_ratio=0.5),
        pytest.raises(PruningError, match="'aria' is pruned with image inputs, got videos"),
    ):
        model.generate(input_ids=ids, pixel_values_videos=torch.zeros(1, 3, 56, 56), max_new_tokens=2)


def test_original_positions_are_refused_where_generate_counts_anew() -> None:
    with pytest.raises(ValueError, match="positions must be 'compact' or None for 'exaone4_5', got 'original'"):
        attach(CASES["exaone4_5"].build(), DivPrune(), keep_ratio=0.5, positions="original")


def test_experts_that_are_chosen_by_token_type_cannot_lose_tokens_half_way() -> None:
    with pytest.raises(UnsupportedModelError, match="moe_mm_token_type_ids"):
        attach(CASES["ernie4_5_vl_moe"].build(), DivPrune(layer=1), keep_ratio=0.5)
