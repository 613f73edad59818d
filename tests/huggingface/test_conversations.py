"""Conversations of every kind on a kept cache: videos, text first, three turns, loops written by hand."""

from typing import Any

import pytest
import torch
from transformers import StaticCache

from divprune import DivPrune, prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.conversation import GREEDY, Conversation, Turn, by_hand, longer, second_turn
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_logits import all_logits, greedy_logits
from tests.support.models.every_family import CASES, Row, make_inputs
from tests.support.subject import RATIO, divprune_rule, first_tokens
from tests.support.turns import FIRST, IMAGES, largest_error, skip_where_transformers_is_wrong

MAIN = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3")
VIDEOS: list[Row] = [[31, "video", 32], [41, 43, 44, 42]]
kept = {**GREEDY, "max_new_tokens": 4}


@pytest.mark.parametrize(
    ("name", "rows", "asked"),
    [
        ("llava_onevision", FIRST, VIDEOS),
        ("qwen2_5_vl", [[1, "video", 5], [1, 6, "video", 7, 8]], VIDEOS),
        ("qwen2_5_vl", [[1, "video", 5], [1, 6, 7, 8]], [[31, "image", 32], [41, "video", 43, "image", 42]]),
        ("qwen3_vl", [[1, "image", 5], [1, 6, 7, 8]], VIDEOS),
        ("glm4v", [[1, "video", 5], [1, 6, 7, 8]], VIDEOS),
    ],
)
def test_videos_and_text_rows_continue(name: str, rows: list[Row], asked: list[Row]) -> None:
    model = CASES[name].build()
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        talk = second_turn(CASES[name], model, pruning, rows, asked)
    assert is_rounding(largest_error(talk, model, divprune_rule()))
    assert is_different(largest_error(talk, model, first_tokens))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_pictures_may_come_after_a_turn_of_text(name: str) -> None:
    model = CASES[name].build()
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        talk = second_turn(CASES[name], model, pruning, [[1, 5, 6, 7], [1, 8]], IMAGES)
    assert is_rounding(largest_error(talk, model, divprune_rule()))
    assert is_different(largest_error(talk, model, first_tokens))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_static_cache_continues(name: str) -> None:
    model = CASES[name].build()
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=150)
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        talk = second_turn(CASES[name], model, pruning, FIRST, IMAGES, **{CACHE: cache}, disable_compile=True)
    assert is_rounding(largest_error(talk, model, divprune_rule()))


def last_picture(inputs: dict[str, Any]) -> dict[str, Any]:
    """The second of two pictures."""
    pixels = inputs["pixel_values"]
    if "image_grid_thw" not in inputs:
        return {"pixel_values": pixels[1:]}
    grid = inputs["image_grid_thw"]
    return {"pixel_values": pixels[int(grid[0].prod()) :], "image_grid_thw": grid[1:]}


@pytest.mark.parametrize("name", MAIN)
def test_three_turns_with_all_pictures_passed_again(name: str) -> None:
    skip_where_transformers_is_wrong(name, IMAGES)
    case, model = CASES[name], CASES[name].build()
    first = make_inputs(case, model, [[1, 5, "image", 6, 7]])
    everything = make_inputs(case, model, [[1, 5, "image", 6, 7, 21, 22, 23, 24, 31, "image", 32]])
    length = first["input_ids"].shape[1]
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        output = model.generate(**first, **kept)
        earlier = pruning.last.items
        everything["input_ids"][:, length : length + 4] = output.sequences[:, length:]
        again = model.generate(**everything, **kept, **{CACHE: cache_in(output)})
        earlier += pruning.last.items
        third = longer(everything, again.sequences, [[51, 52]])
        last = model.generate(**third, **kept, **{CACHE: cache_in(again)})
        assert pruning.last.items == earlier
    per_token = [key for key, value in everything.items() if value.shape == everything["input_ids"].shape]
    asked = {key: everything[key][:, length + 4 :] for key in per_token} | last_picture(everything)
    asked_rows: list[Row] = [[31, "image", 32]]
    talk = Conversation(
        case,
        Turn([[1, 5, "image", 6, 7]], first, output.sequences[:, length:], torch.stack(output.logits, dim=1)),
        Turn(asked_rows, asked, again.sequences[:, -4:], torch.stack(again.logits, dim=1)),
        [],
    )
    assert is_rounding(largest_error(talk, model, divprune_rule()))
    assert is_different(largest_error(talk, model, first_tokens))
    row = next(by_hand(talk, model, divprune_rule()))
    expected = greedy_logits(case, model, row, torch.cat([again.sequences[0, -4:], last.sequences[0, -6:]]))[-4:]
    assert is_rounding((expected - torch.cat(last.logits)).abs().max())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "paligemma"])
@pytest.mark.parametrize("starts_with", ["generate", "forward"])
@pytest.mark.parametrize("mask", ["full", "short", "none"])
def test_a_hand_written_loop_counts_as_the_user_does(name: str, starts_with: str, mask: str) -> None:
    case, model = CASES[name], CASES[name].build()
    inputs = make_inputs(case, model, [*FIRST, [1, 71, 72, "image", 73]])
    masks = [inputs["attention_mask"]]
    with prune(model, DivPrune(), keep_ratio=RATIO, positions=None) as pruning:
        expected = model.generate(**inputs, **{**kept, "suppress_tokens": None})
        if starts_with == "forward":
            output = model(**inputs, use_cache=True)
            token = output.logits[:, -1].argmax(-1, keepdim=True)
        else:
            output = model.generate(**inputs, **{**kept, "suppress_tokens": None, "max_new_tokens": 1})
            token = output.sequences[:, -1:]
        width = pruning.last.sequence_lengths[0]
        short = torch.nn.functional.pad(pruning.last.keep_mask.sum(-1)[:, None], (0, 0))
        short = (torch.arange(width)[None] >= width - short).long()
        made, cache = [token], cache_in(output)
        for step in range(1, 4):
            ones = torch.ones(len(token), step, dtype=torch.int64)
            options = {"full": masks[0], "short": short}
            extra = {} if mask == "none" else {"attention_mask": torch.cat([options[mask], ones], dim=-1)}
            output = model(input_ids=made[-1], **{CACHE: cache}, **extra)
            assert is_rounding((output.logits[:, -1] - expected.logits[step]).abs().max())
            made.append(output.logits[:, -1].argmax(-1, keepdim=True))
        with pytest.raises(PruningError, match="attention_mask must cover the conversation"):
            model(input_ids=token, **{CACHE: cache}, attention_mask=torch.ones(3, 7))
    assert torch.equal(torch.cat(made, dim=1), expected.sequences[:, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize(
    ("name", "positions"), [("llava", "compact"), ("llava", "original"), ("ernie4_5_vl_moe", "original")]
)
def test_forward_takes_a_new_picture_on_a_kept_cache(name: str, positions: Any) -> None:
    case, model = CASES[name], CASES[name].build()
    inputs = make_inputs(case, model, FIRST)
    new = make_inputs(case, model, [[31, "image", 32], [41, 43, 44, "image", 42]])
    with prune(model, DivPrune(), keep_ratio=RATIO, positions=positions):
        first = model(**inputs, use_cache=True)
        mask = torch.cat([inputs["attention_mask"], new["attention_mask"]], dim=-1)
        output = model(**{**new, "attention_mask": mask}, **{CACHE: cache_in(first)})
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    asked = Turn([[31, "image", 32], [41, 43, 44, "image", 42]], new, nothing, nothing)
    talk = Conversation(case, Turn(FIRST, inputs, nothing, nothing), asked, [])
    for keep, is_right in ((divprune_rule(), True), (first_tokens, False)):
        for row, logits in zip(by_hand(talk, model, keep, positions == "compact"), output.logits, strict=True):
            count = int(row.turns.sum())
            expected = all_logits(case, model, row, nothing[0])[-count:]
            error = (logits[-count:] - expected).abs().max()
            assert is_rounding(error) if is_right else is_different(error)
