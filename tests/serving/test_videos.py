"""Greedy answers about videos equal the hand-made reference's; one budget for all frames of a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cases import RATIO, VIDEO_CASES, Case, clip_of, expected, video_prompts
from tests.serving.engines import answers, ask
from tests.serving.reference import divprune_rule, first_rows

PRUNING = {"keep_ratio": RATIO}
Engine = Callable[..., Any]
Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", params=VIDEO_CASES, autouse=True)
def case(request: pytest.FixtureRequest) -> Case:
    return VIDEO_CASES[request.param]


def test_a_batch_and_the_same_again(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm, asked = engine(case.name, PRUNING, **case.settings), video_prompts(case)
    wanted = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    assert answers(ask(llm, asked)) == wanted
    again = ask(llm, asked)
    assert answers(again) == wanted
    assert sum(output.num_cached_tokens for output in again) >= 32


def test_the_choice_of_rows_matters(case: Case, checkpoint: Checkpoint) -> None:
    asked = [prompt for prompt in video_prompts(case) if prompt[1]]
    right = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    wrong = expected(case, checkpoint(case.name), asked, first_rows(RATIO))
    assert sum(ours != theirs for ours, theirs in zip(right, wrong, strict=True)) >= len(asked) - 1


def test_chunks_end_inside_videos(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm = engine(case.name, PRUNING, **case.settings | {"max_num_batched_tokens": 24})
    asked = video_prompts(case)
    assert answers(ask(llm, asked)) == expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))


def test_a_slow_video_kept_whole_is_as_unpruned(case: Case, engine: Engine) -> None:
    text, media = video_prompts(case)[0]
    slow = [(text, media | {"video": [clip_of(0, seconds=3.0)]})]
    unpruned = answers(ask(engine(case.name, None, **case.settings), slow))
    assert answers(ask(engine(case.name, {"keep_ratio": 1.0}, **case.settings), slow)) == unpruned
