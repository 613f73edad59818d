"""ToMe inside the vision encoder: equal to the rule computed by hand, with every way of calling and clear refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaNextConfig, PreTrainedModel

from divprune import DivPrune, attach, get_method, prune
from divprune.config import PruningConfig
from divprune.encoder_options import PixelDedup, TomeEncoder, encoder_option
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.tome_encoder import matched, merging_patches
from divprune.selection.reference import reference_select
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade import Item, short_row
from tests.support.handmade_logits import greedy_logits
from tests.support.handmade_tome import merged_image, pairs_of, shown_tokens, spread
from tests.support.models.base import IMAGE, build_model, clip, llama, noise, siglip
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
    config = PruningConfig(DivPrune(), encoder=TomeEncoder(4))
    with torch.no_grad():
        items = encode(ModelAdapter.of(model), config, inputs).items
    for item, report in zip(items, pruning.last.items, strict=True):
        assert report.num_encoded == len(item.encoded) == 36 - 2 * 4
        assert set(report.kept_indices.tolist()) <= set(item.encoded.tolist())


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


def test_a_second_turn_with_an_image_is_the_whole_conversation() -> None:
    case = CASES_HERE["llava"]
    model = case.build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6, 7]])
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with prune(model, "divprune", keep_ratio=0.3, encoder="tome:r=4"):
        first = model.generate(**inputs, **options)
        more = make_inputs(case, model, [["image", 8, 9]])
        ids = torch.cat([first.sequences, torch.tensor([[11]]), more["input_ids"]], dim=1)
        whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        again = model.generate(
            **whole, pixel_values=more["pixel_values"], past_key_values=first.past_key_values, output_logits=True,
            **options,
        )  # fmt: skip
        pixels = torch.cat([inputs["pixel_values"], more["pixel_values"]])
        anew = model.generate(**whole, pixel_values=pixels, output_logits=True, **options)
    assert is_rounding((torch.stack(again.logits) - torch.stack(anew.logits)).abs().max())


def test_beams_repeat_what_is_left(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    with prune(model, "divprune", keep_ratio=0.3, encoder="tome:r=4"):
        greedy = model.generate(**inputs, max_new_tokens=1, do_sample=False)
        beams = model.generate(**inputs, max_new_tokens=1, do_sample=False, num_beams=3)
    assert torch.equal(greedy, beams)


@pytest.mark.parametrize(
    "other",
    [{"vision_feature_layer": -1}, {"vision_feature_layer": [-1, -2]}, {"vision_feature_select_strategy": "full"}],
)
def test_a_call_that_reads_another_layer_is_refused(
    other: dict[str, Any], model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    with (
        prune(model, "divprune", encoder="tome:r=1"),
        pytest.raises(PruningError, match=r"must be that of the model's configuration, .*, while patches are merged"),
    ):
        model(**inputs, **other)


def test_gradient_checkpointing_is_refused(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    # Its name from transformers 5.24 on, and before.
    (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    model.train()
    with (
        prune(model, "divprune", encoder="tome:r=1"),
        pytest.raises(PruningError, match="gradient checkpointing must be off while patches are merged"),
    ):
        model(**inputs)


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
    "tome:r=4,r=8": ("parameter 'r' of encoder option 'tome' is given twice", "llava"),
    "pixel-dedup:tolerance=-1": ("tolerance must be a number from 0 on, got -1.0", "qwen2_vl"),
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
    "spec", ["tome:r=8", "tome:r=3,schedule=decreasing", "pixel-dedup", "pixel-dedup:tolerance=0.123456789"]
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_copies_are_merged_with_each_other_in_every_precision(dtype: torch.dtype) -> None:
    model = llava().to(dtype)
    # Without positions, patches of one colour are copies of each other in every block.
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embedding.weight.zero_()
    colors = noise(1, 3, 6, 6, seed=5).sign()
    pixels = colors.repeat_interleave(7, dim=2).repeat_interleave(7, dim=3).to(dtype)
    with torch.no_grad(), merging_patches(ModelAdapter.of(model), TomeEncoder(3)) as merged:
        model.model.get_image_features(pixels, return_dict=True)
    owners = merged.patches.owners[0].tolist()
    of_patches = [tuple(color) for color in colors[0].flatten(1).T.tolist()]
    groups = {owner: {of_patches[patch] for patch, own in enumerate(owners) if own == owner} for owner in owners}
    assert len(groups) == 36 - 4 * 3
    assert all(len(colors_of_group) == 1 for colors_of_group in groups.values())


@pytest.mark.parametrize("tolerance", ["0.1", None, True])
def test_a_tolerance_is_a_number(tolerance: Any) -> None:
    with pytest.raises(TypeError, match="tolerance must be a number from 0 on"):
        PixelDedup(tolerance)
