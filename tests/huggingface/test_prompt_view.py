"""What users pass to `generate` sees the original prompt: streamers, stopping criteria, logits processors."""

from typing import Any

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, PreTrainedModel, RepetitionPenaltyLogitsProcessor
from transformers.generation import EosTokenCriteria, MaxLengthCriteria

from divprune import DivPrune, prune
from tests.support.models.every_family import CASES, IMAGE, VIDEO, make_inputs
from tests.support.subject import ONE_AND_TWO, RATIO

NEW = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [IMAGE, VIDEO]}


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "gemma3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return CASES[request.param].build()


@pytest.fixture
def inputs(model: PreTrainedModel) -> dict[str, Any]:
    return make_inputs(CASES[model.config.model_type], model, ONE_AND_TWO)


class Recorder:
    """Notes the ids that it is called with; stops, and changes, nothing."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any) -> Any:
        self.seen.append(input_ids.clone())
        return scores if isinstance(scores, torch.Tensor) else torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize("settings", [{}, {"num_return_sequences": 2, "do_sample": True}, {"num_beams": 2}], ids=str)
def test_processors_and_criteria_see_the_original_prompt(
    model: PreTrainedModel, inputs: dict[str, Any], settings: dict[str, Any]
) -> None:
    processor, criterion, allowed = Recorder(), Recorder(), []

    def allow(row: int, ids: torch.Tensor) -> list[int]:
        allowed.append(ids)
        return list(range(90))

    with prune(model, DivPrune(), keep_ratio=RATIO):
        sequences = model.generate(
            **inputs,
            **(NEW | settings),
            logits_processor=[processor],
            stopping_criteria=[criterion],
            prefix_allowed_tokens_fn=allow,
        )
    length = inputs["input_ids"].shape[1]
    for offset, seen in ((0, processor.seen), (1, criterion.seen)):
        assert [ids.shape[1] for ids in seen] == list(range(length + offset, length + 5 + offset))
        for ids in seen:
            prompt = inputs["input_ids"].repeat_interleave(len(ids) // 2, dim=0)
            assert torch.equal(ids[:, :length], prompt)
    assert {len(ids) for ids in allowed} == set(range(length, length + 5))
    if not settings:
        assert torch.equal(criterion.seen[-1], sequences)
        assert torch.equal(processor.seen[-1], sequences[:, :-1])


def test_a_criterion_on_the_whole_length_stops_as_it_would_unpruned(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    length = inputs["input_ids"].shape[1]
    with prune(model, DivPrune(), keep_ratio=RATIO):
        sequences = model.generate(**inputs, **NEW, stopping_criteria=[MaxLengthCriteria(length + 3)])
        assert sequences.shape[1] == length + 3
        first = sequences[0, length].item()
        stops = [EosTokenCriteria(torch.tensor([first]))]
        stopped = model.generate(**{**inputs, **NEW}, pad_token_id=0, stopping_criteria=stops)
    assert stopped[0, length + 1 :].sum() == 0


def test_no_ngram_of_the_original_prompt_is_repeated(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, DivPrune(), keep_ratio=RATIO):
        output = model.generate(
            **inputs,
            **NEW,
            no_repeat_ngram_size=2,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
        repeated = model.generate(**inputs, **NEW, logits_processor=[NoRepeatNGramLogitsProcessor(2)])
    assert torch.equal(output.sequences, repeated)
    length = inputs["input_ids"].shape[1]
    suppressed = torch.tensor([IMAGE, VIDEO])
    for step, (scores, logits) in enumerate(zip(output.scores, output.logits, strict=True)):
        expected = NoRepeatNGramLogitsProcessor(2)(output.sequences[:, : length + step], logits)
        expected[:, suppressed] = -torch.inf
        assert torch.equal(scores, expected)


@pytest.mark.parametrize("given", ["setting", "processor", "both"])
def test_a_penalty_counts_every_token_of_the_original_prompt_once(
    model: PreTrainedModel, inputs: dict[str, Any], given: str
) -> None:
    extra: dict[str, Any] = {} if given == "processor" else {"repetition_penalty": 1.7 if given == "setting" else 3.0}
    if given != "setting":
        extra["logits_processor"] = [RepetitionPenaltyLogitsProcessor(1.7)]
    with prune(model, DivPrune(), keep_ratio=RATIO):
        output = model.generate(
            **inputs, **NEW, **extra, return_dict_in_generate=True, output_scores=True, output_logits=True
        )
    length = inputs["input_ids"].shape[1]
    for step, (scores, logits) in enumerate(zip(output.scores, output.logits, strict=True)):
        for row, mask in enumerate(inputs["attention_mask"]):
            # The setting leaves padding out since transformers 5.19 or later, a processor of one's own never does.
            ids = output.sequences[row : row + 1, : length + step]
            expected = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits[row : row + 1].clone())[0]
            differs = (scores[row] != expected) & (scores[row] != -torch.inf)
            assert not differs[1:].any()
            assert not differs[0] or (given == "setting" and not mask.all())


class Stream:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.values.append(value)

    def end(self) -> None:
        self.ended = True


def test_a_streamer_gets_the_original_prompt_first(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    stream = Stream()
    with prune(model, DivPrune(), keep_ratio=RATIO):
        sequences = model.generate(**inputs, **NEW, streamer=stream)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(stream.values[0], inputs["input_ids"])
    assert torch.equal(torch.stack(stream.values[1:], dim=1), sequences[:, length:])
    assert stream.ended
