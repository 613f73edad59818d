"""One pass over an answer gives the numbers by which `generate` chose it."""

from contextlib import nullcontext

import pytest
import torch

from divprune import prune
from divprune.errors import UnsupportedModelError
from divprune.evaluation.likelihoods import greedy_answer, judge_answer, judge_answers
from tests.support.float64 import float32_is_float64
from tests.support.models.every_family import CASES, Row, make_inputs

ROW: Row = [1, 5, "image", 6, 7, 8]
METHODS = (None, "divprune", "visionzip", "prumerge", "tome", "fastv:layer=1", "dart:layer=1", "vtw:layer=1")
FAMILIES = ("llava", "llava_next", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_likelihood_of_an_answer_is_that_of_generate(family: str, method: str | None) -> None:
    case = CASES[family]
    with float32_is_float64():
        model = case.build().double()
        inputs = make_inputs(case, model, [ROW])
        inputs = {name: each.double() if each.is_floating_point() else each for name, each in inputs.items()}
        try:
            pruned = nullcontext() if method is None else prune(model, method)
            with pruned:
                output = model.generate(
                    **inputs, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
                )
                answer = greedy_answer(model, inputs, 5)
                judged = judge_answer(model, inputs, answer)
                other = judge_answer(model, inputs, (answer + 1) % 40)
                held = judge_answers(
                    model, inputs, (answer[None] + 1) % 40, torch.ones(1, len(answer), dtype=torch.bool)
                )
        except UnsupportedModelError as error:  # its encoder is not known
            pytest.skip(str(error))
    logits = torch.stack(output.logits)[:, 0]
    assert answer.tolist() == output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    expected = logits.double().log_softmax(-1).gather(1, answer[:, None]).mean()
    # float32 keeps 24 bits of a sum of logarithms.
    assert judged.log_likelihood == pytest.approx(float(expected), rel=1e-6)
    assert judged.is_own
    assert not other.is_own
    assert other.log_likelihood < judged.log_likelihood
    assert held == [pytest.approx(other.log_likelihood, rel=1e-6)]


def test_an_empty_answer_is_refused() -> None:
    case = CASES["llava"]
    model = case.build()
    with pytest.raises(ValueError, match="at least one token"):
        judge_answer(model, make_inputs(case, model, [ROW]), torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_batch_of_answers_is_judged_as_each_alone(family: str) -> None:
    case = CASES[family]
    rows: list[Row] = [ROW, [1, 5, "image", 6]]
    answers = torch.tensor([[7, 2, 9], [8, 2, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    with float32_is_float64():
        model = case.build().double()
        batch = make_inputs(case, model, rows)
        batch = {name: each.double() if each.is_floating_point() else each for name, each in batch.items()}
        with prune(model, "divprune"):
            found = judge_answers(model, batch, answers, mask)
        alone = []
        for place, (answer, own) in enumerate(zip(answers, mask, strict=True)):
            with prune(model, "divprune"):
                alone.append(judge_answer(model, _row_of(batch, place), answer[own]).log_likelihood)
    assert found == pytest.approx(alone, rel=1e-6)


def _row_of(batch: dict[str, torch.Tensor], place: int) -> dict[str, torch.Tensor]:
    """One prompt of a batch without its padding, each of whose prompts has an image."""
    seen = batch["attention_mask"][place].bool()
    row = {name: batch[name][place : place + 1, seen] for name in ("input_ids", "attention_mask")}
    row |= {name: batch[name][place : place + 1, seen] for name in ("mm_token_type_ids",) if name in batch}
    grids = batch.get("image_grid_thw")
    if grids is None:
        return row | {"pixel_values": batch["pixel_values"][place : place + 1]}
    patches = batch["pixel_values"].split(grids.prod(dim=1).tolist())[place]
    return row | {"pixel_values": patches, "image_grid_thw": grids[place : place + 1]}
