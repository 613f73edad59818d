"""The scenes benchmark asks what it says, prunes as it says, and counts right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import DivPrune, RandomTokens, UniformGrid, prune
from divprune.embedded import KINDS, checkpoint_path, questions, scene
from divprune.evaluation.scenes.questions import ANSWER_KINDS, Setting, Tally, evaluate_scenes, settings


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    folder: Path = checkpoint_path()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_the_table_holds_every_combination_and_the_two_references() -> None:
    rows = settings([DivPrune(), RandomTokens(), UniformGrid()], [0.5, 0.1], ["compact", "original"], [0, 1, 2])
    assert [row.name for row in rows[:2]] == ["unpruned", "picture withheld"]
    assert len(rows) == 2 + 2 * 2 * (1 + 3 + 1)
    assert len(set(rows)) == len(rows)


def test_a_tally_counts_word_for_word() -> None:
    asked = questions(scene(0))
    tally = Tally(Setting(DivPrune(), 0.5))
    for number, question in enumerate(asked):
        tally.add(question, question.answer if number % 2 else question.answer + " indeed")
    row = tally.row(num_visual_tokens=256)
    assert row["num_kept"] == 128
    for kind in KINDS:
        marks = [number % 2 for number, question in enumerate(asked) if question.kind == kind]
        assert row["num_questions"].get(kind, 0) == len(marks)
        assert row[f"{kind}_percent"] == (100 * sum(marks) / len(marks) if marks else 0)


def straightforward(embedded: tuple[Any, Any], setting: Setting, num_scenes: int) -> dict[str, float]:
    """Every question alone: the processor's own inputs, the picture encoded each time."""
    model, processor = embedded
    tally = Tally(setting)
    for seed in range(num_scenes):
        item = scene(seed, "test")
        for question in questions(item):
            image = [{"type": "image"}] if setting.keep_ratio else []
            messages = [{"role": "user", "content": [*image, {"type": "text", "text": question.prompt}]}]
            text = processor.apply_chat_template(messages, add_generation_prompt=True)
            inputs = processor(images=item.image if image else None, text=text, return_tensors="pt")
            new_tokens = generate(model, inputs, setting)[0, inputs["input_ids"].shape[1] :]
            tally.add(question, processor.decode(new_tokens, skip_special_tokens=True).strip())
    return tally.row(256)


def generate(model: Any, inputs: Any, setting: Setting) -> torch.Tensor:
    if setting.method is None:
        return model.generate(**inputs, do_sample=False, max_new_tokens=48)
    with prune(model, setting.method, keep_ratio=setting.keep_ratio, positions=setting.positions):
        return model.generate(**inputs, do_sample=False, max_new_tokens=48)


def test_batches_with_shared_encodings_answer_like_single_questions(embedded: tuple[Any, Any]) -> None:
    rows = [Setting(), Setting(keep_ratio=0.0), Setting(DivPrune(), 0.1, "original"), Setting(DivPrune(), 0.1)]
    table = evaluate_scenes(*embedded, rows, num_scenes=5, scenes_per_batch=2)
    assert table == [straightforward(embedded, setting, num_scenes=5) for setting in rows]
    unpruned, withheld = table[:2]
    assert unpruned["mean_percent"] > withheld["mean_percent"]


def test_random_draws_differ_between_batches_and_seeds_but_not_between_runs(embedded: tuple[Any, Any]) -> None:
    rows = settings([RandomTokens()], [0.05], ["compact"], [0, 1, 2])[2:]
    table = evaluate_scenes(*embedded, rows, num_scenes=6, scenes_per_batch=2)
    assert table == evaluate_scenes(*embedded, rows, num_scenes=6, scenes_per_batch=2)
    assert len({tuple(row[f"{kind}_percent"] for kind in ANSWER_KINDS) for row in table}) > 1
    assert [row["seed"] for row in table] == [0, 1, 2]
