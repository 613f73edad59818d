"""What methods are given besides the visual tokens is what the model itself computes."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel

from divprune import attach, prune
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.encoding.items import VisualItem
from divprune.huggingface.families.vision_towers import TOWERS, tower_of
from divprune.methods.base import Method
from divprune.methods.grids import packed_pieces
from divprune.methods.item_context import Need
from divprune.methods.vision_inputs import received_attention
from tests.support.encoding import Curious, encoded_for
from tests.support.float64 import is_rounding
from tests.support.models.every_family import CASES, Row, make_inputs

ONE_AND_TWO: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12]]


def _has_tower(name: str) -> bool:
    try:
        return tower_of(CASES[name].build()) is not None
    except pytest.skip.Exception:  # this version of transformers has no such family
        return False


TOWER_CASES = [name for name in CASES if _has_tower(name)]


@dataclass(frozen=True)
class CuriousAsOne(Curious):
    """The same of the last layer, with one softmax for all heads."""

    vision_layer: ClassVar[int] = -1
    joins_heads: ClassVar[bool] = True


@dataclass(frozen=True)
class CuriousOfClsTokens(Curious):
    """And of what there is of CLS tokens."""

    reads: ClassVar[frozenset[Need]] = frozenset({"cls_features"})


@dataclass(frozen=True)
class CuriousOfNothingElse(Curious):
    """CLS features alone, without which it cannot do."""

    needs: ClassVar[frozenset[Need]] = frozenset({"cls_features"})


@dataclass(frozen=True)
class CuriousOfTwoLayers(Curious):
    """Attention of two layers, of all tokens of the encoder."""

    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "early_vision_attention"})
    early_vision_layer: ClassVar[int] = 0
    attending: ClassVar[Literal["cls", "all"]] = "all"


@dataclass(frozen=True)
class CuriousOfLayers99(CuriousOfTwoLayers):
    """Of a layer that there is not."""

    early_vision_layer: ClassVar[int] = 99


def supplied(name: str, method: Method | None = None) -> tuple[PreTrainedModel, dict[str, Any], list[VisualItem]]:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, ONE_AND_TWO)
    with torch.no_grad():
        encoding = encoded_for(model, inputs, method or Curious())
    return model, inputs, encoding.items


def test_every_tower_has_a_tiny_model() -> None:
    assert {CASES[name].build().config.model_type for name in TOWER_CASES} == set(TOWERS) & set(CONFIG_MAPPING)


@pytest.mark.parametrize("name", TOWER_CASES)
def test_listening_changes_no_token(name: str) -> None:
    model, inputs, items = supplied(name)
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    with torch.no_grad():
        alone = encoded_for(model, inputs).items
    for item, expected in zip(items, alone, strict=True):
        assert item.visual_tokens.equal(expected.visual_tokens)
    assert all("capture" not in str(config._attn_implementation) for config in configs)
    assert not any(module._forward_pre_hooks for module in model.modules())


OF_ONE_PATCH = ("llava", "vipllava", "llava_next", "paligemma", "internvl")


@pytest.mark.parametrize("name", OF_ONE_PATCH)
def test_patch_features_are_those_of_the_tokens(name: str) -> None:
    """Projecting an item's own features gives its own tokens, so that each token has its own patch."""
    model, _, items = supplied(name)
    tower = TOWERS[model.config.model_type]
    for item in items:
        assert item.context is not None
        has_patch, features = item.context.has_patch, item.context.patch_features
        assert has_patch is not None
        assert features is not None
        with torch.no_grad():
            projected = tower.projector_of(model)(features[None])[0]
        assert (projected - item.visual_tokens)[has_patch].abs().max() < 1e-5
        newline = getattr(model.model, "image_newline", None)
        assert bool(has_patch.all()) == (newline is None)
        if newline is not None:
            assert (item.visual_tokens[~has_patch] - newline).abs().max() < 1e-6


@pytest.mark.parametrize("name", OF_ONE_PATCH)
def test_cls_features_are_those_of_each_tokens_image_or_tile(name: str) -> None:
    model, inputs, items = supplied(name, CuriousOfClsTokens())
    known = [item.context.cls_features for item in items]
    if name in ("paligemma", "internvl"):  # no CLS token, and a projector of several patches
        assert known == [None] * len(items)
        return
    named = "vision_feature_layers" if hasattr(model.config, "vision_feature_layers") else "vision_feature_layer"
    layers = getattr(model.config, named)
    seen: list[Tensor] = []
    handle = model.model.vision_tower.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        encoded_for(model, inputs)
    handle.remove()
    states = [seen[0].hidden_states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    first = torch.cat([each[:, 0] for each in states], dim=-1)
    assert is_rounding((first[0] - known[0][0]).abs().max())  # type: ignore[index]
    projector = TOWERS[model.config.model_type].projector_of(model)
    for number, (item, features) in enumerate(zip(items, known, strict=True)):
        assert features is not None
        own = features[item.context.has_patch]
        assert own.shape == (int(item.context.has_patch.sum()), first.shape[1])  # type: ignore[union-attr]
        rows = {tuple(row) for row in own.tolist()}
        assert rows <= {tuple(row) for row in first.float().tolist()}
        if name == "llava_next":
            assert len(rows) > 1  # one a tile
            assert own[:16].equal(own[:1].expand(16, -1))
        else:
            assert rows == {tuple(first[number].float().tolist())}
        with torch.no_grad():
            assert projector(own[None]).shape[-1] == item.visual_tokens.shape[-1]


@pytest.mark.parametrize("shown", ["image", "large image", "video"])
def test_values_of_patches_become_values_of_tokens_as_features_do(shown: str) -> None:
    """LLaVA-OneVision, whose tokens lie between patches in videos, and in large images, whose tiles are scaled down."""
    name = "llava_onevision"
    model, modality = CASES[name].build(), "video" if shown == "video" else "image"
    if shown == "large image":
        inputs = CASES[name].media(model, modality, [1]) | {"image_sizes": torch.tensor([[56, 56]])}
        inputs["input_ids"] = torch.tensor([[1, *[model.config.image_token_id] * (16 + 5 * 6), 5]])
    else:
        rows: list[Row] = [[part if part != "image" else modality for part in row] for row in ONE_AND_TWO]
        inputs = make_inputs(CASES[name], model, rows)
    projected: list[Tensor] = []
    tower = TOWERS[name]
    handle = tower.projector_of(model).register_forward_hook(lambda _, __, output: projected.append(output))
    with torch.no_grad():
        items = encoded_for(model, inputs, Curious()).items
    handle.remove()
    patches = torch.cat([each.flatten(0, -2) for each in projected])
    values = tower.token_values(model, inputs, modality, patches)
    has_patch = torch.cat([item.context.has_patch for item in items if item.context.has_patch is not None])
    tokens = torch.cat([item.visual_tokens for item in items])
    assert is_rounding((values - tokens)[has_patch].abs().max())
    assert (tokens[~has_patch] == model.model.image_newline).all()
    assert not values[~has_patch].any()


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_grids_of_tiles_follow_from_where_newlines_stand(name: str) -> None:
    model, _, items = supplied(name)
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    pieces = [item.pieces for item in items]
    assert {len(each or ()) for each in pieces} == ({2} if name == "llava_next" else {1, 2})
    assert pieces == [
        packed_pieces(item.context.has_patch, side) for item in items if item.context.has_patch is not None
    ]


def test_a_method_that_cannot_do_without_cls_tokens_is_refused_where_there_are_none() -> None:
    _, _, items = supplied("llava", CuriousOfNothingElse())
    assert all(item.context.cls_features is not None for item in items)
    model = CASES["paligemma"].build()
    inputs = make_inputs(CASES["paligemma"], model, ONE_AND_TWO)
    with (
        prune(model, CuriousOfNothingElse(), keep_ratio=0.5),
        pytest.raises(PruningError, match="'curious' needs cls_features, which is not known of these tokens"),
    ):
        model.generate(**inputs, max_new_tokens=1)


@pytest.mark.parametrize("name", [name for name in TOWER_CASES if "qwen" in name or name == "internvl"])
def test_tokens_of_several_patches_are_made_from_these(name: str) -> None:
    """The patches of each token, as the last layer of the encoder gives them, through the projector."""
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, ONE_AND_TWO)
    tower = TOWERS[model.config.model_type]
    last: list[Tensor] = []
    blocks = tower.of(model).encoder.layer if name == "internvl" else tower.of(model).blocks
    handle = blocks[-1].register_forward_hook(lambda _, __, out: last.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        tokens = torch.cat([item.visual_tokens for item in encoded_for(model, inputs).items])
    handle.remove()
    hidden = tower.of(model).layernorm(last[0])[:, 1:].flatten(0, 1) if name == "internvl" else last[0]
    patches = tower.patches(model, inputs, "image", len(hidden))
    assert patches.shape == (len(tokens), 4)
    assert patches.flatten().sort().values.equal(torch.arange(len(hidden)))
    with torch.no_grad():
        grouped = hidden[patches]
        given = grouped.flatten(1)[None] if name == "internvl" else grouped.flatten(0, 1)
        projected = tower.projector_of(model)(given).view(tokens.shape)
    assert (projected - tokens).abs().max() < 1e-5


def eager_attention(model: PreTrainedModel, inputs: dict[str, Any], layer: int) -> Tensor:
    """(pictures, heads, tokens, tokens) probabilities as transformers gives them."""
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    pixels = inputs["pixel_values"].flatten(0, inputs["pixel_values"].ndim - 4)
    with torch.no_grad():
        return tower(pixels, output_attentions=True, return_dict=True).attentions[layer]


@pytest.mark.parametrize("name", ["llava", "vipllava", "internvl", "paligemma"])
def test_attention_is_that_of_the_cls_token_or_of_all_patches(name: str) -> None:
    model, inputs, items = supplied(name)
    probabilities = eager_attention(model, inputs, -2)
    if name == "paligemma":  # no CLS token
        expected = probabilities.mean(dim=2).transpose(0, 1).flatten(1)
    else:
        expected = probabilities[:, :, 0, 1:].transpose(0, 1).flatten(1)
    patches = TOWERS[model.config.model_type].patches(model, inputs, "image", expected.shape[1])
    expected = expected[:, patches].mean(dim=-1)
    heard = torch.cat([item.context.vision_attention for item in items if item.context], dim=1)
    assert (heard - expected).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["llava", "internvl", "paligemma"])
def test_two_layers_may_be_read_and_all_tokens_may_attend(name: str) -> None:
    model, inputs, items = supplied(name, CuriousOfTwoLayers())
    first = 0 if name == "paligemma" else 1
    for field, layer in (("vision_attention", -2), ("early_vision_attention", 0)):
        expected = eager_attention(model, inputs, layer).mean(dim=2)[:, :, first:].transpose(0, 1).flatten(1)
        patches = TOWERS[model.config.model_type].patches(model, inputs, "image", expected.shape[1])
        heard = torch.cat([getattr(item.context, field) for item in items], dim=1)
        assert is_rounding((heard - expected[:, patches].mean(dim=-1)).abs().max())
    with pytest.raises(ValueError, match="early_layer must be between"):
        attach(model, CuriousOfLayers99(), keep_ratio=0.5)


def test_an_early_layer_that_is_not_there_is_refused() -> None:
    model = CASES["llava"].build()
    with pytest.raises(ValueError, match="early_layer must be between -3 and 2, got 9"), prune(model, "hiprune"):
        pass


def test_a_pooled_token_of_a_video_has_the_mean_of_its_patches() -> None:
    """LLaVA-NeXT-Video: 4 x 4 patches a frame, pooled to 2 x 2 tokens; the first is of patches 0, 1, 4 and 5."""
    model = CASES["llava_next_video"].build()
    inputs = make_inputs(CASES["llava_next_video"], model, [[1, 5, "video", 6, 7]])
    with torch.no_grad():
        (item,) = encoded_for(model, inputs, Curious()).items
    frames = inputs["pixel_values_videos"].shape[1]
    probabilities = eager_attention(model, {"pixel_values": inputs["pixel_values_videos"]}, -2)
    of_patches = probabilities[:, :, 0, 1:].transpose(0, 1)  # (heads, frames, 16)
    squares = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    expected = of_patches[:, :, squares].mean(dim=-1).flatten(1)
    assert expected.shape[1] == 4 * frames == len(item.visual_tokens)
    assert is_rounding((item.context.vision_attention - expected).abs().max())
    # What the projector reads is pooled already.
    with torch.no_grad():
        projected = model.model.multi_modal_projector(item.context.patch_features[None])[0]
    assert is_rounding((projected - item.visual_tokens).abs().max())
    assert item.context.has_patch.all()


def test_attention_of_tiles_is_that_of_their_tile() -> None:
    model, inputs, items = supplied("llava_next")
    tiles = inputs["pixel_values"][0]  # the first picture: the whole one, then its tiles
    probabilities = eager_attention(model, {"pixel_values": tiles[:1]}, -2)
    clues = items[0].context
    assert clues is not None
    assert clues.vision_attention is not None
    assert (clues.vision_attention[:, :16] - probabilities[0, :, 0, 1:]).abs().max() < 1e-6
    assert clues.has_patch is not None
    assert clues.vision_attention[:, ~clues.has_patch].abs().max() == 0


def test_joined_heads_are_one_softmax_over_whole_queries_and_keys() -> None:
    model, inputs, items = supplied("llava", CuriousAsOne())
    layer = model.model.vision_tower.encoder.layers[-1]
    seen: list[Tensor] = []
    handle = layer.self_attn.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        encoded_for(model, inputs)
        query, key = layer.self_attn.q_proj(seen[0]), layer.self_attn.k_proj(seen[0])
    handle.remove()
    expected = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)[:, 0, 1:]
    for picture, item in enumerate(items):
        assert item.context is not None
        assert item.context.vision_attention is not None
        assert (item.context.vision_attention - expected[picture]).abs().max() < 1e-6
        keys = item.context.vision_keys
        assert keys is not None
        assert (keys.transpose(0, 1).flatten(1) - key[picture, 1:]).abs().max() < 1e-6


def test_windowed_layers_are_replaced_by_the_next_that_sees_everything() -> None:
    model = CASES["qwen2_5_vl"].build()  # two layers, of which the second sees everything
    tower = TOWERS["qwen2_5_vl"]
    assert tower.attention(model, -2) is model.model.visual.blocks[1].attn
    _, _, items = supplied("qwen2_5_vl")
    for item in items:
        assert item.context is not None
        assert item.context.vision_attention is not None
        # Every query's probabilities sum to 1 over the patches of its picture, four of which are one token.
        assert item.context.vision_attention.sum(dim=1).tolist() == pytest.approx([0.25] * 4, abs=1e-5)


def test_received_attention_does_not_depend_on_how_much_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = (torch.randn(2, 3, 40, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    whole = received_attention(queries, keys)
    monkeypatch.setattr("divprune.methods.vision_inputs.READ_AT_ONCE", 2 * 3 * 40 * 7)
    assert (received_attention(queries, keys) - whole).abs().max() < 1e-7
    assert (whole.sum(dim=-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_text_is_what_follows_the_last_picture_or_all_there_is(name: str) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, [[1, 5, "image", 6, 7, 8], [1, 9, "image", 12, "image"]])
    items = encoded_for(model, inputs, Curious()).items
    embeddings = model.get_input_embeddings()
    for item in items:
        assert item.context is not None
        text = item.context.text_embeddings
        assert text is not None
        assert text.equal(embeddings(torch.tensor([6, 7, 8] if item.row == 0 else [1, 9, 12])))


@pytest.mark.parametrize("name", [name for name in CASES if name not in TOWER_CASES])
def test_families_that_cannot_feed_a_method_refuse_it_by_name(name: str) -> None:
    model = CASES[name].build()
    with pytest.raises(UnsupportedModelError, match="method 'visionzip' needs patch_features, vision_attention"):
        attach(model, "visionzip", keep_ratio=0.5)
    assert "generate" not in vars(model)


def test_pictures_that_come_encoded_cannot_feed_a_method_that_listens() -> None:
    model, inputs, _ = supplied("llava")
    with torch.no_grad():
        outputs = encoded_for(model, inputs).outputs
    encoded = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with prune(model, "scope", keep_ratio=0.5), pytest.raises(PruningError, match="pass images as pixels"):
        model.generate(**encoded, mm_encoder_outputs=outputs, max_new_tokens=1)


def test_a_model_that_keeps_the_cls_token_is_refused() -> None:
    model = CASES["llava"].build()
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(UnsupportedModelError, match="its vision encoder is not known"):
        attach(model, "scope", keep_ratio=0.5)


@pytest.mark.parametrize("name", ["visionzip", "prumerge", "scope", "cdpruner"])
def test_half_precision_models_feed_methods_too(name: str) -> None:
    model = CASES["llava"].build().bfloat16()
    inputs = make_inputs(CASES["llava"], CASES["llava"].build(), ONE_AND_TWO)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with prune(model, name, num_keep=7) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    for item in pruning.last.items:
        assert item.num_kept == 7
        assert item.kept_tokens.dtype == torch.bfloat16
