"""Later turns that bring a picture of their own, on the cache of an earlier one, against the hand-made reference.

Every family that takes them has one such conversation; those of `KINDS_OF_LAYERS` have all kinds.
"""

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor

from divprune import VTW, DivPrune, FastV, prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE
from divprune.methods import PyramidDrop
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_layers import run
from tests.support.layer_cases import (
    FAMILIES,
    INSIDE_AT,
    KINDS_OF_LAYERS,
    STEPS,
    build,
    cache_of,
    first_tokens,
    generate_logits,
    inputs_of,
    rule_of,
    settings_of,
)
from tests.support.layer_turns import FIRST, SECOND, Talk, is_per_token
from tests.support.layer_variants import INSIDE
from tests.support.models.every_family import NO_PLACEHOLDERS

PREFIX = ("paligemma", "paligemma2")
"""What its prefix sees on a second turn is transformers' own affair: the mask is rebuilt from the new tokens alone."""
FRESH = "hunyuan_vl"
UNNESTED = [name for name in FAMILIES if name not in (*PREFIX, FRESH)]


OLD = Version(transformers.__version__) < Version("5.23")
LATE_BLOCKS = ("gemma3",) if OLD else ()
"""Models whose blocks transformers misplaces on later turns."""


@pytest.mark.parametrize(
    ("name", "kind", "method", "new_ids_only"),
    [(name, "dynamic", DivPrune(layer=INSIDE_AT[name]), False) for name in UNNESTED if name not in KINDS_OF_LAYERS]
    + [
        (name, kind, method, new_ids_only)
        for name in KINDS_OF_LAYERS
        for kind in ("dynamic", "static")
        for method in (DivPrune(layer=1), FastV(layer=2), VTW(layer=1))
        for new_ids_only in (False, True)
        if (name, kind) != ("gemma3", "static")
    ],
)
def test_a_new_picture_on_the_kept_cache(name: str, kind: str, method: Any, new_ids_only: bool) -> None:
    if name in LATE_BLOCKS:
        pytest.skip("refused, see below")
    talk = Talk(name, kind)
    with prune(talk.model, method, **settings_of(method)) as pruning:
        said, tokens, logits = talk.run(new_ids_only)
        lengths = pruning.last.sequence_lengths
        keep_mask = pruning.last.keep_mask
    assert is_rounding(talk.error({method.layer: rule_of(method)}, said, tokens, logits))
    assert is_different(talk.error({method.layer: first_tokens}, said, tokens, logits))
    later = [layer.get_seq_length() for layer in talk.cache.layers if hasattr(layer, "get_seq_length")]
    if len(later) == len(lengths):
        assert [int(length) - STEPS + 1 for length in later] == list(lengths)
    rows = talk.rows(said)
    kept = [run(talk.model, row, tokens[0][:0], {method.layer: rule_of(method)}).kept for row in rows]
    visual = [sum(len(item) for item in row.items) - sum(map(len, kept[number])) for number, row in enumerate(rows)]
    columns = [row.embeddings.shape[1] - dropped for row, dropped in zip(rows, visual, strict=True)]
    assert keep_mask.sum(dim=-1).tolist() == columns


@pytest.mark.parametrize("name", KINDS_OF_LAYERS)
def test_a_new_picture_after_several_drops(name: str) -> None:
    if name in LATE_BLOCKS:
        pytest.skip("refused, see below")
    talk = Talk(name)
    method = PyramidDrop(first_layer=1, layers_per_stage=1, num_drops=2)
    with prune(talk.model, method):
        said, tokens, logits = talk.run(new_ids_only=True)

    def kept(entering: Any, share: float) -> Tensor:
        ranked = entering.own_attention().mean(dim=0).sort(descending=True, stable=True).indices
        return ranked[: int(entering.total * share)].sort().values

    rules = {1: lambda entering: kept(entering, 0.5), 2: lambda entering: kept(entering, 0.25)}
    assert is_rounding(talk.error(rules, said, tokens, logits))
    assert is_different(talk.error({1: rules[1], 2: first_tokens}, said, tokens, logits))


def test_static_caches_on_which_transformers_masks_wrongly_are_refused() -> None:
    talk = Talk("gemma3", "static")
    with prune(talk.model, DivPrune(layer=1), keep_ratio=0.3), pytest.raises(PruningError, match="must be a dynamic"):
        talk.run(new_ids_only=False)


@pytest.mark.skipif(not OLD, reason="newer versions are right")
def test_a_transformers_that_misplaces_blocks_is_refused() -> None:
    talk = Talk("gemma3")
    with (
        prune(talk.model, DivPrune(layer=1), keep_ratio=0.3),
        pytest.raises(PruningError, match=r"need transformers 5\.23"),
    ):
        talk.run(new_ids_only=False)


def test_pictures_that_are_numbered_are_refused_on_a_kept_cache() -> None:
    talk = Talk(FRESH)
    with (
        prune(talk.model, DivPrune(layer=1), keep_ratio=0.3),
        pytest.raises(PruningError, match="must be empty when images come in"),
    ):
        talk.run(new_ids_only=False)


@pytest.mark.parametrize("name", ["gemma3", "hyperclovax_vision_v2"])
def test_padding_between_turns_that_would_count_is_refused(name: str) -> None:
    talk = Talk(name)
    talk.second = inputs_of(name, talk.model, SECOND)
    with (
        prune(talk.model, DivPrune(layer=1), keep_ratio=0.3),
        pytest.raises(PruningError, match="must grow by equally many tokens"),
    ):
        talk.run(new_ids_only=False)


def test_other_layers_than_the_cache_was_pruned_at_are_refused() -> None:
    talk = Talk("llava")
    with prune(talk.model, DivPrune(layer=1), keep_ratio=0.3):
        generate_logits(talk.model, talk.first, **{CACHE: talk.cache})
    mask = torch.ones(2, talk.cache.get_seq_length() + talk.second["input_ids"].shape[1], dtype=torch.int64)
    second = talk.second | {"attention_mask": mask}
    with (
        prune(talk.model, DivPrune(layer=2), keep_ratio=0.3),
        pytest.raises(PruningError, match=r"lost tokens at layers \(1,\), got new images to drop at layers \(2,\)"),
    ):
        talk.model.generate(**second, **{CACHE: talk.cache}, max_new_tokens=1)


@pytest.mark.parametrize("name", [name for name in KINDS_OF_LAYERS if INSIDE[name].cells])
def test_another_call_in_between_does_not_shift_positions(name: str) -> None:
    logits = []
    for disturb in (False, True):
        talk = Talk(name)
        with prune(talk.model, DivPrune(layer=1), keep_ratio=0.3):
            said, _, _ = generate_logits(talk.model, talk.first, **{CACHE: talk.cache}, **NO_PLACEHOLDERS)
            if disturb:
                talk.model.generate(**inputs_of(name, talk.model, [SECOND[0], FIRST[0]]), max_new_tokens=2)
            ids = torch.cat([talk.first["input_ids"], said, torch.full((2, 3), 21)], dim=-1)
            mask = torch.cat([talk.first["attention_mask"], torch.ones(2, STEPS + 3, dtype=torch.int64)], dim=-1)
            turn = {"input_ids": ids, "attention_mask": mask}
            logits.append(generate_logits(talk.model, turn, **{CACHE: talk.cache})[1])
    assert torch.equal(*logits)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_turn_of_text_before_may_have_been_made_with_another_method(name: str) -> None:
    """The reference of a first turn under `fastv` is the hand-made one, in the tests above."""
    model, image = build(name), inputs_of(name, build(name), [SECOND[0]])
    logits = []
    for first in (DivPrune(), FastV(layer=2)):
        cache, ids = cache_of(model, "dynamic", 64), torch.tensor([[1, 5, 6, 7]])
        for method, new in ((first, None), (FastV(layer=2), image), (FastV(layer=2), None)):
            turn = new or {"input_ids": torch.tensor([[21, 22]])}
            padding = (ids.shape[1], 0)
            inputs = {
                key: torch.nn.functional.pad(values, padding) if is_per_token(values, turn) else values
                for key, values in turn.items()
            }
            ids = torch.cat([ids, turn["input_ids"]], dim=-1)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with prune(model, method, keep_ratio=0.3):
                said, seen, _ = generate_logits(model, inputs, **{CACHE: cache}, **NO_PLACEHOLDERS)
            ids = torch.cat([ids, said], dim=-1)
        logits.append(seen)
    assert torch.equal(*logits)
