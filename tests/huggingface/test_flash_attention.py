"""Flash attention takes gaps in position ids for borders between packed sequences: kept tokens still see each other."""

import pytest
import torch

from divprune import prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.flash_attention import use_flash_attention
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_logits import all_logits
from tests.support.models.every_family import CASES, Row, make_inputs
from tests.support.subject import ONE_AND_TWO, RATIO, Subject, divprune_rule, first_tokens

ONE: list[Row] = [[1, 5, "image", 6, 7, 8]]
NOTHING = torch.tensor([], dtype=torch.int64)
NAMES = ["llava", "mistral3", "internvl", "qwen2_vl"]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("rows", [ONE, ONE_AND_TWO], ids=["one", "batch"])
@pytest.mark.parametrize("name", NAMES)
def test_generate_equals_the_reference(
    name: str, rows: list[Row], use_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, plain = Subject(CASES[name]), Subject(CASES[name])
    use_flash_attention(subject.model, monkeypatch)
    inputs = subject.inputs(rows)
    for positions in subject.positions:
        with prune(subject.model, keep_ratio=RATIO, positions=positions):
            tokens, logits, _ = subject.generate(inputs, use_cache=use_cache)
        assert is_rounding(plain.greedy_error(inputs, divprune_rule(), positions, tokens, logits))
        assert is_different(plain.greedy_error(inputs, first_tokens, positions, tokens, logits))


@pytest.mark.parametrize("rows", [ONE, ONE_AND_TWO], ids=["one", "batch"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_forward_equals_the_reference(name: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    subject, plain = Subject(CASES[name]), Subject(CASES[name])
    use_flash_attention(subject.model, monkeypatch)
    inputs = subject.inputs(rows)
    with prune(subject.model, keep_ratio=RATIO):
        logits = subject.model(**inputs).logits
    errors = []
    for rule in (divprune_rule(), first_tokens):
        expected = [all_logits(plain.case, plain.model, row, NOTHING) for row in plain.reference_rows(inputs, rule)]
        errors.append(max(float((logits[i, -len(row) :] - row).abs().max()) for i, row in enumerate(expected)))
    assert is_rounding(errors[0])
    assert is_different(errors[1])


@torch.no_grad()
def test_later_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text goes on; an image's gaps, which do not begin with 0, would be read as borders."""
    subject, plain = Subject(CASES["llava"]), Subject(CASES["llava"])
    use_flash_attention(subject.model, monkeypatch)
    text, image = torch.tensor([[6, 31, 32]]), make_inputs(subject.case, subject.model, [[6, "image", 7]])
    logits = []
    for each in (subject, plain):
        inputs = each.inputs(ONE)
        with prune(each.model, keep_ratio=RATIO):
            cache = cache_in(each.model(**inputs, use_cache=True))
            logits.append(each.model(input_ids=text, **{CACHE: cache}).logits)
    assert is_rounding((logits[0] - logits[1]).abs().max())
    with prune(subject.model, keep_ratio=RATIO):
        cache = cache_in(subject.model(**subject.inputs(ONE), use_cache=True))
        del image["attention_mask"]
        with pytest.raises(PruningError, match="'compact' for these tokens under flash attention"):
            subject.model(**image, **{CACHE: cache})
    with prune(subject.model, keep_ratio=RATIO, positions="compact"):
        cache = cache_in(subject.model(**subject.inputs(ONE), use_cache=True))
        subject.model(**image, **{CACHE: cache})
