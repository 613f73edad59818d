"""Every method, on the families whose pictures differ most."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune import prune
from divprune.budget import budget
from divprune.errors import PruningError
from divprune.huggingface.families.vision_towers import TOWERS
from divprune.huggingface.model_inputs import CACHE, cache_in
from divprune.methods import ItemContext, available_methods, get_method
from divprune.methods.base import Method
from divprune.methods.item_context import Need
from divprune.methods.merging import Merged, MergingMethod
from divprune.selection.reference import reference_select
from tests.methods.contexts import VIDEO, made
from tests.support.conversation import GREEDY as LOGITS
from tests.support.conversation import longer
from tests.support.encoding import encoded_for
from tests.support.float64 import is_different, is_rounding
from tests.support.greedy_calls import generate_logits, largest_error
from tests.support.layer_variants import deeper
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import NEW_TOKENS, ONE_AND_TWO, RATIO, divprune_rule

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "internvl")
BEFORE = [info.name for info in available_methods() if made(info.name).layers == ()]
INSIDE = {
    "fastv": "fastv:layer=1",
    "vtw": "vtw:layer=1",
    "pyramiddrop": "pyramiddrop:first_layer=1,layers_per_stage=1",
    "sparsevlm": "sparsevlm:tokens=64,first_layer=1,second_layer=2,third_layer=3",
    "dart": "dart:layer=1",
    "fitprune": "fitprune",
    "pact": "pact:layer=1",
}
"""Methods that act inside the LLM, at layers that the tiny models have; FitPrune's are those of `made`."""
SHALLOW = {"hiprune": "hiprune:early_layer=0", "vscan": "vscan:early_layer=0"}
"""Methods that read a layer which tiny vision encoders do not have."""
NAMES = [(INSIDE | SHALLOW).get(info.name, info.name) for info in available_methods()]
GREEDY_CALL = {**LOGITS, "max_new_tokens": 4}
ONE_SIZE = r"needs images of one size, .* give the processor smaller ones instead, by divprune\.methods\.downsampled"
NO_GRID = "needs tokens that form one .* grid"

# What is refused, and why; everything else works.
REFUSED = {
    **{(family, name): "compares the frames of a video" for family in FAMILIES[:2] for name in VIDEO},
    **{("internvl", name): "compares the frames of a video" for name in VIDEO},
    ("internvl", "downsampling"): NO_GRID,
    ("internvl", "globalcom2"): "needs a square thumbnail and one grid of tiles",
    ("llava_next", "downsampling"): ONE_SIZE,  # a smaller picture has fewer tokens by itself
    ("qwen2_5_vl", "downsampling"): ONE_SIZE,
}


@cache
def model_of(family: str) -> PreTrainedModel:
    """A layer deeper than usual, for methods that drop at three."""
    return deeper(family)


@cache
def inputs_of(family: str, kind: str) -> dict[str, Any]:
    rows = [[kind if part == "image" else part for part in row] for row in ONE_AND_TWO]
    return make_inputs(CASES[family], model_of(family), rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_runs_on_every_family_or_is_refused(family: str, name: str) -> None:
    model, method = model_of(family), made(name)
    asked_for = {} if method.count == "schedule" else {"keep_ratio": RATIO}
    inputs = inputs_of(family, "video" if family == "qwen2_5_vl" and name in VIDEO else "image")
    if (family, name) in REFUSED:
        with (
            prune(model, method, **asked_for),
            pytest.raises((PruningError, ValueError), match=REFUSED[family, name]),
        ):
            model.generate(**inputs, **NEW_TOKENS)
        return
    with prune(model, method, **asked_for) as pruning:
        tokens, logits = generate_logits(model, inputs)
        again, logits_again = generate_logits(model, inputs)
    assert tokens.equal(again)
    assert logits.equal(logits_again)
    for item in pruning.last.items:
        asked = budget(item.num_visual_tokens, keep_ratio=RATIO)
        if method.count == "schedule":
            asked = method.schedule(item.num_visual_tokens)[-1].num_keep
        assert item.num_kept == asked or (method.count == "at_most" and 1 <= item.num_kept < asked)
    unpruned, _ = generate_logits(model, inputs)
    assert not unpruned.equal(tokens)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_every_method_goes_on_with_text(family: str, name: str) -> None:
    model, method = model_of(family), made(name)
    if (family, name) in REFUSED:
        return
    asked_for = {} if method.count == "schedule" else {"keep_ratio": RATIO}
    inputs = inputs_of(family, "video" if family == "qwen2_5_vl" and name in VIDEO else "image")
    with prune(model, method, **asked_for) as pruning:
        first = model.generate(**inputs, **GREEDY_CALL)
        kept = [item.kept_indices for item in pruning.last.items]
        text = longer(inputs, first.sequences, [[31, 32, 33], [41, 42, 43]])
        second = model.generate(**text, **GREEDY_CALL, **{CACHE: cache_in(first)})
        assert [item.kept_indices.tolist() for item in pruning.last.items] == [each.tolist() for each in kept]
        if method.layers != () or method.needs & {"text_embeddings", "clip_text"}:
            return  # what these keep depends on all of the text
        types = {key: first.sequences.new_zeros(text["input_ids"].shape) for key in inputs if key.endswith("type_ids")}
        for key, value in types.items():
            value[:, : inputs[key].shape[1]] = inputs[key]
        whole = model.generate(**{**inputs, **types, **text}, **GREEDY_CALL)
    difference = torch.stack(second.logits) - torch.stack(whole.logits)
    assert is_rounding(difference.abs().max())


def test_every_method_is_there_once() -> None:
    assert [name.partition(":")[0] for name in NAMES] == [info.name for info in available_methods()]
    assert set(INSIDE) == {info.name for info in available_methods()} - set(BEFORE)


@pytest.mark.parametrize("name", [name for name in BEFORE if made(name).count == "adaptive"])
@pytest.mark.parametrize("family", FAMILIES)
def test_adaptive_methods_find_a_count_for_each_picture(family: str, name: str) -> None:
    model, inputs = model_of(family), inputs_of(family, "image")
    method = made(name)
    with prune(model, method) as pruning:
        generate_logits(model, inputs)
    encoding = encoded_for(model, inputs, method)
    reported = sorted(item.num_kept for item in pruning.last.items)
    expected = []
    for item in encoding.items:
        assert item.context is not None
        assert item.context.has_patch is not None
        patches = item.context.at(item.context.has_patch.nonzero().squeeze(1))
        context = ItemContext(vision_attention=patches.vision_attention)
        expected.append(method.adaptive_count(torch.zeros(int(item.context.has_patch.sum()), 1), context))
    assert reported == sorted(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_nothing(family: str, name: str) -> None:
    if (family, name) in REFUSED or made(name).count == "schedule":
        return
    model, inputs = model_of(family), inputs_of(family, "video" if name in VIDEO else "image")
    _, expected = generate_logits(model, inputs)
    with prune(model, name, keep_ratio=1.0):
        _, logits = generate_logits(model, inputs)
    assert is_rounding((logits - expected).abs().max())


@dataclass(frozen=True)
class InOrderPicked(MergingMethod):
    """DivPrune's picks, in the order picked, "merged" into the places of the same tokens in their own order."""

    name: ClassVar[str] = "in-order-picked"
    before_projector: bool = False

    def merge(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Merged:
        picks = reference_select(visual_tokens, num_keep)
        return Merged(torch.eye(len(visual_tokens))[picks], picks.sort().values)


@dataclass(frozen=True)
class InOrderPickedBeforeTheProjector(InOrderPicked):
    """The same by way of the projector's input."""

    needs: ClassVar[frozenset[Need]] = frozenset({"patch_features"})
    merges = "patch_features"


@pytest.mark.parametrize("method", [InOrderPicked(), InOrderPickedBeforeTheProjector()], ids=lambda m: m.merges)
@pytest.mark.parametrize("family", ["llava", "internvl", "paligemma", "gemma3"])
def test_merged_tokens_stand_in_the_places_of_their_anchors(family: str, method: Method) -> None:
    if method.needs and family not in TOWERS:
        return
    model, inputs = model_of(family), inputs_of(family, "image")
    with prune(model, method, keep_ratio=RATIO, positions="compact"):
        tokens, logits = generate_logits(model, inputs)
    picked, ascending = divprune_rule(order="selection"), divprune_rule()
    assert is_rounding(largest_error(CASES[family], model, inputs, picked, tokens, logits, compact=True))
    assert is_different(largest_error(CASES[family], model, inputs, ascending, tokens, logits, compact=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["prumerge", "visionzip", "tome"])
def test_the_model_reads_the_weighted_sums(family: str, name: str) -> None:
    """Each picture's merged tokens, from the weights, before the projector where it works on single patches."""
    model, inputs, method = model_of(family), inputs_of(family, "image"), made(name)
    assert isinstance(method, MergingMethod)
    with prune(model, method, num_keep=6) as pruning, torch.no_grad():
        model(**inputs)
    tower = TOWERS[model.config.model_type]
    with torch.no_grad():
        items = encoded_for(model, inputs, method).items
    for item, report in zip(items, pruning.last.items, strict=True):
        assert item.context is not None
        assert item.context.has_patch is not None
        candidates = item.context.has_patch.nonzero().squeeze(1)
        own = item.context.at(candidates)
        context = ItemContext(
            vision_attention=own.vision_attention, vision_keys=own.vision_keys, patch_features=own.patch_features,
            cls_features=own.cls_features, project=own.project,
        )  # fmt: skip
        merged = method.merge(item.visual_tokens[candidates], 6, context)
        expected = merged.tokens(item.visual_tokens[candidates])
        if tower.projects_patches and method.merges == "patch_features":
            assert own.patch_features is not None
            with torch.no_grad():
                features = merged.weights @ own.patch_features
                if merged.cls_weights is not None:
                    assert own.cls_features is not None
                    features = features + merged.cls_weights @ own.cls_features
                projected = tower.projector_of(model)(features[None])[0]
            assert is_different((projected - expected).abs().max())  # it does matter where
            expected = projected
        assert report.kept_indices.equal(candidates[merged.anchors])
        assert is_rounding((report.kept_tokens - expected).abs().max())


def test_row_breaks_are_left_out_until_every_patch_is_in() -> None:
    model, inputs = model_of("llava_next"), inputs_of("llava_next", "image")
    with prune(model, "mmr", num_keep=70) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    items = encoded_for(model, inputs, get_method("mmr")).items
    for item, report in zip(items, pruning.last.items, strict=True):
        assert item.context is not None
        has_patch = item.context.has_patch
        assert has_patch is not None
        num_patches = int(has_patch.sum())
        kept = has_patch[report.kept_indices]
        assert report.num_kept == min(70, len(has_patch))
        assert int(kept.sum()) == min(num_patches, report.num_kept)


GRIDS_SEEN: list[tuple[int, ItemContext]] = []


@dataclass(frozen=True)
class SeesGrids(Method):
    """Keeps the first tokens, and notes what it was told."""

    name: ClassVar[str] = "sees-grids"
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "pieces"})

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        GRIDS_SEEN.append((len(visual_tokens), context))
        return torch.arange(num_keep)


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_that_read_the_vision_encoder_know_the_grids_of_the_patches(family: str) -> None:
    model = model_of(family)
    GRIDS_SEEN.clear()
    with prune(model, SeesGrids(), keep_ratio=RATIO), torch.no_grad():
        model(**inputs_of(family, "image"))
    assert len(GRIDS_SEEN) == 3
    for num_patches, context in GRIDS_SEEN:
        pieces = context.pieces
        assert pieces is not None
        covered = [
            piece.start + row * piece.stride + column
            for piece in pieces
            for row in range(piece.rows)
            for column in range(piece.columns)
        ]
        assert covered == list(range(num_patches))
    most = max(len(context.pieces or ()) for _, context in GRIDS_SEEN)
    assert (most > 1) == (family in ("llava_next", "internvl"))


@pytest.mark.parametrize(("family", "first"), [("llava_next", 16), ("internvl", 16)])
def test_tiles_are_pooled_one_by_one(family: str, first: int) -> None:
    """The first piece, LLaVA-NeXT's whole picture and InternVL's first tile, is 4 x 4; a quarter of it is 2 x 2."""
    model, inputs = model_of(family), inputs_of(family, "image")
    with prune(model, "m3", keep_ratio=0.25) as pruning, torch.no_grad():
        model(**inputs)
    items = encoded_for(model, inputs, get_method("m3")).items
    for item, report in zip(items, pruning.last.items, strict=True):
        grid = item.visual_tokens[:first].view(4, 4, -1)
        expected = grid.unflatten(0, (2, 2)).unflatten(2, (2, 2)).mean(dim=(1, 3)).flatten(0, 1)
        assert (report.kept_tokens[:4] - expected).abs().max() < 1e-5
        assert report.kept_indices[:4].tolist() == [5, 7, 13, 15]
        assert item.pieces is not None
        covered = [
            piece.start + row * piece.stride + column
            for piece in item.pieces
            for row in range(piece.rows)
            for column in range(piece.columns)
        ]
        newline = getattr(model.model, "image_newline", None)
        is_break = torch.zeros(len(item.visual_tokens), dtype=torch.bool)
        if newline is not None:
            is_break = (item.visual_tokens - newline).abs().amax(dim=1) < 1e-6
        assert covered == (~is_break).nonzero().flatten().tolist()


@pytest.mark.parametrize("scope", ["sample", "frame"])
@pytest.mark.parametrize("name", ["visionzip", "cdpruner", "scope"])
def test_clues_follow_the_scope(name: str, scope: Any) -> None:
    model, inputs = model_of("qwen2_5_vl"), inputs_of("qwen2_5_vl", "video")
    with prune(model, name, num_keep=4, scope=scope) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    kept = [item.num_kept for item in pruning.last.items]
    if scope == "sample":
        assert kept[0] == 4
        assert kept[1] + kept[2] == 4
    else:
        frames = inputs["video_grid_thw"][:, 0].tolist()
        assert kept == [4 * count for count in frames]


def test_gradients_reach_the_tower_through_merged_tokens() -> None:
    model, inputs = CASES["llava"].build(), inputs_of("llava", "image")
    with prune(model, "visionzip", num_keep=6):
        model(**inputs).logits.sum().backward()
    assert model.model.vision_tower.embeddings.patch_embedding.weight.grad.abs().max() > 0


@pytest.mark.parametrize("method", ["visionzip", "pooling", "divprune", "random"])
def test_the_papers_keep_ratio_is_kept_where_none_is_given(method: str) -> None:
    model, inputs = CASES["llava"].build(), inputs_of("llava", "image")
    with prune(model, method) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    assert [item.num_kept for item in pruning.last.items] == [
        budget(item.num_visual_tokens, keep_ratio=0.098) for item in pruning.last.items
    ]
