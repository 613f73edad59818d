"""ToMe inside the vision encoder: equal to the rule computed by hand, with every way of calling and clear refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaNextConfig, PreTrainedModel

from divprune import DivPrune, attach, get_method, prune
from divprune.config import PruningConfig
from divprune.encoder_options import TomeEncoder, encoder_option
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.tome_encoder import matched
from divprune.selection.reference import reference_select
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade import Item, short_row
from tests.support.handmade_logits import greedy_logits
from tests.support.handmade_tome import merged_image, pairs_of, shown_tokens, spread
from tests.support.models.base import IMAGE, build_model, clip, llama, siglip
from tests.support.models.every_family import CASES, make_inputs
from tests.support.models.llava import TILES
from tests.support.subject import GREEDY, ONE_AND_TWO

BLOCKS = 5


def deep(vision: Any) -> Any:
    vision.num_hidden_layers = BLOCKS
    return vision


def llava() -> PreTrainedModel:
    return build_model(LlavaConfig(vision_config=deep(clip(42)), text_config=llama(), image_token_id=IMAGE))


def llava_siglip() -> PreTrainedModel:
    config = LlavaConfig(
        vision_config=deep(siglip(42)), text_config=llama(), image_token_id=IMAGE, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return build_model(config)


def llava_next() -> PreTrainedModel:
    config = LlavaNextConfig(
        vision_config=deep(clip(28)), text_config=llama(), image_token_id=IMAGE, image_grid_pinpoints=TILES
    )
    return build_model(config)


def paligemma() -> PreTrainedModel:
    config = CASES["paligemma"].build().config
    deep(config.vision_config)
    return build_model(config)


CASES_HERE = {
    "llava": replace(CASES["llava"], build=llava),
    "llava-siglip": replace(CASES["llava"], build=llava_siglip),
    "llava_next": replace(CASES["llava_next"], build=llava_next),
    "paligemma-siglip": replace(CASES["paligemma"], build=paligemma),
}
OPTIONS = (TomeEncoder(1), TomeEncoder(2), TomeEncoder(2, "decreasing"))


def handmade_items(name: str, model: PreTrainedModel, inputs: dict[str, Any], option: TomeEncoder) -> list[Any]:
    """Each image's tokens (M, d), where merged patches are copies, and those that stand for themselves."""
    base: Any = model.base_model
    tower, has_cls = base.vision_tower, "siglip" not in name
    pixels = inputs["pixel_values"]
    counts = [1] * len(pixels)
    if name == "llava_next":
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        counts = [image_size_to_num_patches(size, TILES, 28) for size in inputs["image_sizes"]]
        pixels = torch.cat([tiles[:count] for tiles, count in zip(pixels, counts, strict=True)])
    with torch.no_grad():
        embedded = tower.embeddings(pixels)
        if has_cls:
            embedded = tower.pre_layrnorm(embedded)
    read = BLOCKS - 1 if has_cls else BLOCKS
    tokens, owners, places, start = [], {}, [], 0
    for number, states in enumerate(embedded):
        groups, merged = merged_image(tower, states, option.merges(read), has_cls)
        if "paligemma" in name:
            merged = tower.post_layernorm(merged)
        num_patches = len(states) - int(has_cls)
        values, owner = spread(groups, base.multi_modal_projector(merged).detach(), num_patches)
        owners |= {number * num_patches + patch: start + group for patch, group in enumerate(owner)}
        places += [number * num_patches + group.place for group in groups]
        tokens.append(values)
        start += len(groups)
    numbers = torch.arange(len(owners)).view(len(embedded), -1, 1).double()
    if name == "llava_next":
        sizes, rule = inputs["image_sizes"], "default"
        packed = base.pack_image_features(list(torch.stack(tokens).split(counts)), sizes, rule, base.image_newline)[0]
        patches = base.pack_image_features(list(numbers.split(counts)), sizes, rule, torch.tensor([-1.0]).double())[0]
    else:
        packed, patches = tokens, list(numbers)
    return [
        (values.detach(), shown_tokens([int(patch) for patch in own.flatten()], owners, places))
        for values, own in zip(packed, patches, strict=True)
    ]


@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CASES_HERE)
def test_patches_are_merged_as_by_hand(name: str, option: TomeEncoder) -> None:
    model = CASES_HERE[name].build()
    inputs = make_inputs(CASES_HERE[name], model, ONE_AND_TWO)
    config = PruningConfig(DivPrune(), encoder=option)
    with torch.no_grad():
        found = encode(ModelAdapter.of(model), config, inputs).items
    expected = handmade_items(name, model, inputs, option)
    assert len(found) == len(expected) == 3
    for item, (tokens, shown) in zip(found, expected, strict=True):
        assert is_rounding((item.visual_tokens - tokens).abs().max())
        assert item.encoded is not None
        assert item.encoded.tolist() == shown
        assert len(shown) < len(tokens)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CASES_HERE)
def test_what_is_merged_is_pruned_as_by_hand(name: str, option: TomeEncoder, positions: Any) -> None:
    case = CASES_HERE[name]
    model = case.build()
    inputs = make_inputs(case, model, ONE_AND_TWO)
    with prune(model, "divprune", keep_ratio=0.5, encoder=option, positions=positions) as pruning:
        output = model.generate(**inputs, **GREEDY)
    report = pruning.last
    assert report is not None
    expected = handmade_items(name, model, inputs, option)
    kept = []
    queue = {"image": [Item(tokens, [], None, index) for index, (tokens, _) in enumerate(expected)]}
    left = iter(shown for _, shown in expected)

    def keep(tokens: Tensor) -> Tensor:
        shown = torch.tensor(next(left))
        picks = reference_select(tokens[shown], max(1, round(0.5 * len(shown))))
        kept.append(shown[picks.sort().values])
        return kept[-1]

    length = inputs["input_ids"].shape[1]
    tokens, logits = output.sequences[:, length:], torch.stack(output.logits, dim=1)
    for row in range(2):
        short = short_row(case, model, inputs, row, queue, keep, positions == "compact")
        by_hand = greedy_logits(case, model, short, tokens[row])
        assert is_rounding((by_hand - logits[row]).abs().max())
    for item, own, (whole, shown) in zip(report.items, kept, expected, strict=True):
        assert item.kept_indices.tolist() == own.tolist()
        assert (item.num_visual_tokens, item.num_encoded) == (len(whole), len(shown))
    assert f"{report.num_encoded} encoded" in str(report)


def test_the_kept_places_are_those_of_the_image(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, "divprune", keep_ratio=1.0) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    whole = pruning.last.items[0].boxes()
    with prune(model, "divprune", num_keep=5, encoder="tome:r=4") as pruning:
        model.generate(**inputs, max_new_tokens=1)
    item = pruning.last.items[0]
    assert item.boxes() == [whole[index] for index in item.kept_indices.tolist()]


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("total", [12, 13])
def test_pairs_are_those_found_by_a_loop(total: int, first: int, count: int) -> None:
    keys = torch.randn(4, total, 5, generator=torch.Generator().manual_seed(total))
    # Ties: copies of one patch.
    keys[1, 2:9] = keys[1, 1]
    source, target = matched(keys, count, first)
    for number, image in enumerate(keys):
        cls = torch.full((first, 5), 9.0)
        expected = [(even - first, odd - first) for even, odd in pairs_of(torch.cat([cls, image]), count, first)]
        found = list(zip(source[number].tolist(), target[number].tolist(), strict=True))
        if number == 1:
            # Rounding may tell copies apart in one of the two; they stay copies.
            assert all(torch.equal(image[a], image[b]) or (a, b) in expected for a, b in found)
        else:
            assert found == expected


def test_the_model_is_as_before_and_unpruned_calls_are_too(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    before = model(**inputs).logits
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    with prune(model, "divprune", keep_ratio=1.0, encoder="tome:r=4"):
        assert is_different((model(**inputs).logits[:, -1] - before[:, -1]).abs().max())
    assert torch.equal(model(**inputs).logits, before)
    after = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    assert after == hooks
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", ["random", "uniform", "norm", "minmax", "otprune"])
def test_any_method_that_needs_the_tokens_alone_selects_from_what_is_left(
    name: str, model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    with prune(model, name, num_keep=5, encoder="tome:r=4") as pruning:
        model.generate(**inputs, max_new_tokens=1)
    assert [item.num_kept for item in pruning.last.items] == [5, 5, 5]
    assert all(item.num_encoded == 36 - 2 * 4 for item in pruning.last.items)


@pytest.mark.parametrize("scope", ["item", "sample"])
def test_ratios_are_of_what_is_left(scope: Any, model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, "divprune", keep_ratio=0.5, encoder="tome:r=4", scope=scope) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    assert pruning.last.num_kept == 3 * 28 // 2


def test_tiles_and_newlines_are_known_of_what_is_left() -> None:
    case = CASES_HERE["llava_next"]
    model = case.build()
    inputs = make_inputs(case, model, ONE_AND_TWO)
    with prune(model, "divprune", num_keep=2, encoder="tome:r=1", scope="tile", newlines="keep") as pruning:
        model.generate(**inputs, max_new_tokens=1)
    for item in pruning.last.items:
        layout = item.layout
        assert layout is not None
        newlines = layout.newlines.nonzero().squeeze(1)
        assert set(newlines.tolist()) <= set(item.kept_indices.tolist())
        others = torch.tensor([index for index in item.kept_indices.tolist() if index not in newlines.tolist()])
        counts = layout.tile[others].unique(return_counts=True)[1]
        assert counts.max() <= 2


def test_several_turns_and_beams_work(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, "divprune", keep_ratio=0.3, encoder="tome:r=4"):
        one = model.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False)
        first = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True, do_sample=False)
        ids = torch.cat([first.sequences, torch.full((2, 2), 7)], dim=1)
        again = model.generate(
            input_ids=ids,
            attention_mask=torch.cat([inputs["attention_mask"], torch.ones(2, 5, dtype=torch.int64)], dim=1),
            past_key_values=first.past_key_values,
            max_new_tokens=2,
            do_sample=False,
        )
    assert one.shape == first.sequences.shape
    assert again.shape[1] == ids.shape[1] + 2


def test_one_call_may_encode_in_another_way(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, "divprune", keep_ratio=0.5) as pruning:
        with pruning.override(encoder="tome:r=4"):
            model.generate(**inputs, max_new_tokens=1)
        assert pruning.last.items[0].num_encoded == 28
        model.generate(**inputs, max_new_tokens=1)
        assert pruning.last.items[0].num_encoded == 36


BAD: dict[str, tuple[str, str]] = {
    "pooling": ("encoder must be an option such as 'tome:r=8', got 'pooling'; there is tome, pixel-dedup", "llava"),
    "tome": ("tome:r=8", "llava"),
    "tome:r=0": ("at least 1, got 0", "llava"),
    "tome:r=two": ("parameter 'r' of encoder option 'tome' must be of type int, got 'two'", "llava"),
    "tome:q=2": ("encoder option 'tome' has no parameter 'q'", "llava"),
    "tome:r=2,schedule=rising": ("schedule must be one of constant, decreasing, got 'rising'", "llava"),
    "tome:r=19": ("r must be smaller than 19 .* block 0 of 2 has 36 patches left", "llava"),
    "tome:r=13": ("r must be smaller than 13 .* block 1 of 2 has 23 patches left", "llava"),
    "tome:r=2": ("this 'qwen2_vl' model is another", "qwen2_vl"),
}


@pytest.mark.parametrize("spec", BAD)
def test_what_cannot_be_is_refused_when_it_is_attached(spec: str) -> None:
    message, name = BAD[spec]
    with pytest.raises(ValueError, match=message):
        attach(CASES[name].build(), "divprune", encoder=spec)


@pytest.mark.parametrize("name", ["vipllava", "internvl", "llava_onevision", "gemma3", "idefics3"])
def test_towers_that_cannot_merge_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"option 'tome' (merges patches of CLIP|needs a projector)"):
        attach(CASES[name].build(), "divprune", encoder="tome:r=1")


@pytest.mark.parametrize("spec", ["visionzip", "vispruner", "tome", "fastv", "pooling", "divprune:layer=1"])
def test_methods_that_read_what_is_merged_away_are_refused(spec: str, model: PreTrainedModel) -> None:
    message = "encoder must be None for method .*, got 'tome:r=1': the method (reads|drops)"
    with pytest.raises(ValueError, match=message):
        attach(model, get_method(spec), encoder="tome:r=1")


def test_images_that_came_encoded_are_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    outputs = {"image": model.model.get_image_features(inputs.pop("pixel_values"), return_dict=True)}
    with (
        prune(model, "divprune", encoder="tome:r=1"),
        pytest.raises(PruningError, match="option 'tome:r=1' changes the vision encoder: pass images as pixels"),
    ):
        model.generate(**inputs, mm_encoder_outputs=outputs, max_new_tokens=1)


def test_videos_are_refused() -> None:
    case = CASES["llava_next_video"]
    model = case.build()
    inputs = make_inputs(case, model, [[1, "video", 5]])
    with (
        prune(model, "divprune", encoder="tome:r=1"),
        pytest.raises(PruningError, match="encoder option 'tome' is for images, got videos"),
    ):
        model.generate(**inputs, max_new_tokens=1)


def test_an_option_of_no_known_kind_is_refused(model: PreTrainedModel) -> None:
    wrong: Any = 8
    with pytest.raises(TypeError, match="encoder must be an option such as 'tome:r=8', or None, got 8"):
        attach(model, "divprune", encoder=wrong)


@pytest.mark.parametrize(
    "spec", ["tome:r=8", "tome:r=3,schedule=decreasing", "pixel-dedup", "pixel-dedup:tolerance=0.5"]
)
def test_options_are_written_as_they_are_read(spec: str) -> None:
    assert str(encoder_option(spec)) == spec


def test_schedules_merge_about_as_many_in_all() -> None:
    assert TomeEncoder(8).merges(23) == [8] * 23
    merges = TomeEncoder(8, "decreasing").merges(23)
    assert (merges[0], merges[-1]) == (16, 0)
    assert merges == sorted(merges, reverse=True)
    # Halves are rounded down.
    assert 8 * 23 - 23 / 2 < sum(merges) <= 8 * 23
    assert TomeEncoder(8, "decreasing").patches_left(576, 23)[-1] == 576 - sum(merges)


def test_half_precision_merges_what_full_precision_does() -> None:
    found = []
    for dtype in (torch.float64, torch.bfloat16):
        model = llava().to(dtype)
        inputs = make_inputs(CASES_HERE["llava"], model, ONE_AND_TWO)
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        with prune(model, "divprune", keep_ratio=0.5, encoder="tome:r=2") as pruning:
            model.generate(**inputs, max_new_tokens=1)
        found.append([item.num_encoded for item in pruning.last.items])
    assert found[0] == found[1]


def test_eager_attention_counts_patches_as_often_too(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    logits = []
    for implementation in ("sdpa", "eager"):
        model.model.vision_tower.set_attn_implementation(implementation)
        with prune(model, "divprune", keep_ratio=1.0, encoder="tome:r=6"):
            logits.append(model(**inputs).logits)
    assert is_rounding((logits[0] - logits[1]).abs().max())


def test_attention_that_takes_no_logits_is_refused(model: PreTrainedModel) -> None:
    model.config.vision_config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(UnsupportedModelError, match="'flash_attention_2' does not take; load the model with"):
        attach(model, "divprune", encoder="tome:r=1")


def test_a_call_that_fails_leaves_the_model_as_it_was(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    before = model(**inputs).logits
    with prune(model, "divprune", encoder="tome:r=4"):
        with pytest.raises(ValueError, match="doesn't match model"):
            model.generate(**(inputs | {"pixel_values": inputs["pixel_values"][..., :28, :28]}), max_new_tokens=1)
        assert not any("forward" in vars(module) for module in model.model.vision_tower.modules())
    assert torch.equal(model(**inputs).logits, before)
