"""Greedy answers of each family's engine equal the hand-made reference's, whatever way the prompts go through it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divprune import prune
from tests.serving.cases import CASES, RATIO, SMALL_RATIO, Case, expected, prompts, reference
from tests.serving.engines import NUM_TOKENS, answers, ask
from tests.serving.reference import arguments, divprune_rule, first_rows

PRUNING = {"keep_ratio": RATIO, "allow_request_ratio": True}
Engine = Callable[..., Any]
Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", params=CASES, autouse=True)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_a_batch_and_the_same_again(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm, asked = engine(case.name, PRUNING, **case.settings), prompts(case)
    wanted = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    assert answers(ask(llm, asked)) == wanted
    again = ask(llm, asked)
    assert answers(again) == wanted
    # The second time, whole blocks come from the prefix cache.
    assert sum(output.num_cached_tokens for output in again) >= 32


def test_one_by_one(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm, asked = engine(case.name, PRUNING, **case.settings), prompts(case)
    llm.reset_prefix_cache()
    wanted = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    assert [answers(ask(llm, [prompt]))[0] for prompt in asked] == wanted


def test_a_request_asks_for_less(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm, asked = engine(case.name, PRUNING, **case.settings), prompts(case)
    wanted = expected(case, checkpoint(case.name), asked, divprune_rule(SMALL_RATIO))
    assert answers(ask(llm, asked, keep_ratio=SMALL_RATIO)) == wanted
    # Neither cache mixes them up.
    assert answers(ask(llm, asked)) == expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))


def test_the_choice_of_rows_matters(case: Case, checkpoint: Checkpoint) -> None:
    """Else the tests above could not fail."""
    asked = [prompt for prompt in prompts(case) if any(prompt[1].values())]
    right = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    wrong = expected(case, checkpoint(case.name), asked, first_rows(RATIO))
    assert sum(ours != theirs for ours, theirs in zip(right, wrong, strict=True)) >= len(asked) - 1


def test_transformers_pruned_agrees(case: Case, checkpoint: Checkpoint) -> None:
    """The reference is also what `prune` does under transformers."""
    own = reference(case.name, checkpoint(case.name))
    asked = [prompt for prompt in prompts(case) if prompt[1]["image"]]
    found = []
    with prune(own.model, keep_ratio=RATIO):
        for text, media in asked:
            inputs = own.processor(text=text, **arguments(media), return_tensors="pt")
            inputs = {name: value for name, value in inputs.items() if name != "image_num_patches"}
            output = own.model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None)
            found.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    wanted = expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
    assert found == [ids for _, ids in wanted]


def test_chunks_end_inside_pictures(case: Case, engine: Engine, checkpoint: Checkpoint) -> None:
    llm = engine(case.name, PRUNING, **case.settings | {"max_num_batched_tokens": 24})
    asked = prompts(case)
    assert answers(ask(llm, asked)) == expected(case, checkpoint(case.name), asked, divprune_rule(RATIO))
