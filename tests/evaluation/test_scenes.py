"""The scenes suite asks what it says and prunes as it says: in batches with shared encodings as one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import KINDS, checkpoint_path, questions, scene
from divprune.evaluation.scenes.baselines import UNPRUNED, WITHHELD
from divprune.evaluation.scenes.cases import Case
from divprune.evaluation.scenes.scores import Answered
from divprune.evaluation.scenes.suite import Suite

NUM_SCENES = 5


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    folder: Path = checkpoint_path()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def straightforward(embedded: tuple[Any, Any], case: Case) -> list[Answered]:
    """Every question alone: the processor's own inputs, the image encoded each time."""
    model, processor = embedded
    found = []
    for seed in range(NUM_SCENES):
        item = scene(seed, "test")
        for question in questions(item):
            image = [] if case.name == WITHHELD else [{"type": "image"}]
            messages = [{"role": "user", "content": [*image, {"type": "text", "text": question.prompt}]}]
            text = processor.apply_chat_template(messages, add_generation_prompt=True)
            inputs = processor(images=item.image if image else None, text=text, return_tensors="pt")
            new_tokens = generate(model, inputs, case)[0, inputs["input_ids"].shape[1] :]
            found.append(Answered(seed, question, processor.decode(new_tokens, skip_special_tokens=True).strip()))
    return found


def generate(model: Any, inputs: Any, case: Case) -> torch.Tensor:
    if case.method is None:
        return model.generate(**inputs, do_sample=False, max_new_tokens=48)
    with prune(model, case.method, num_keep=case.num_keep, positions=case.positions):
        return model.generate(**inputs, do_sample=False, max_new_tokens=48)


@pytest.mark.slow
def test_batches_with_shared_encodings_answer_like_single_questions(
    embedded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divprune.evaluation.scenes.suite.SCENES_PER_BATCH", 2)
    cases = [Case(UNPRUNED), Case(WITHHELD)]
    cases += [Case("divprune", "tokens", 0.1, 26, positions=positions) for positions in ("original", "compact")]
    suite = Suite(*embedded, NUM_SCENES)
    rows = suite.run(cases, with_cider=False)
    for case, row in zip(cases, rows, strict=True):
        alone = straightforward(embedded, case)
        # The suite asks for captions last.
        together = suite.answered(case)
        assert sorted(alone, key=repr) == sorted(together, key=repr)
        for kind in KINDS:
            sample_scores = [one.is_right for one in alone if one.question.kind == kind]
            assert row[f"{kind}_percent"] == pytest.approx(100 * sum(sample_scores) / len(sample_scores))
    assert rows[0]["mean_percent"] > rows[1]["mean_percent"]
    assert len({case.key for case in cases}) == 4


def test_random_draws_differ_between_seeds_but_not_between_runs(embedded: tuple[Any, Any]) -> None:
    cases = [Case(f"random:seed={seed}", "tokens", 0.05, 13) for seed in range(3)]
    first, second = Suite(*embedded, NUM_SCENES), Suite(*embedded, NUM_SCENES)
    assert first.run(cases, with_cider=False) == second.run(cases, with_cider=False)
    assert len({tuple(one.prediction for one in first.answered(case)) for case in cases}) > 1
