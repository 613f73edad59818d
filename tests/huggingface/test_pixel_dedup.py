"""Vision encoders that encode repeated pixels once: against encoders written out plainly on the units that stay."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from divprune.config import PruningConfig
from divprune.encoder_options import PixelDedup
from divprune.errors import UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode import encode
from divprune.huggingface.encoding.pixel_dedup import DEDUPLICATED, EncodedUnits, deduplicating
from tests.support.encoding import Curious
from tests.support.float64 import is_different, is_rounding
from tests.support.handmade_tower import redundant_by_hand, tower_by_hand
from tests.support.models.every_family import CASES, IMAGE, built

THREE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# Units of a window of the tiny encoder with windows: 16 pixels a side, 2 a patch, 2 patches a unit.
WINDOW = 4


def media(name: str, kind: str, count: int, colours: int | None = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Patches and grids of some images or videos whose units are of a few colours; of noise if `colours` is None."""
    inputs = CASES[name].media(built(name), kind, [count])
    pixels = inputs["pixel_values" if kind == "image" else "pixel_values_videos"]
    if colours is not None:
        palette = pixels[: 4 * colours].clone().unflatten(0, (-1, 4))
        generator = torch.Generator().manual_seed(seed)
        pixels = palette[torch.randint(0, colours, (len(pixels) // 4,), generator=generator)].flatten(0, 1)
    return pixels, inputs[f"{kind}_grid_thw"]


def encoded(model: PreTrainedModel, kind: str, pixels: Tensor, grids: Tensor) -> Any:
    encode = getattr(model.base_model, f"get_{kind}_features")
    with torch.no_grad():
        return encode(pixels, grids, return_dict=True)


def deduplicated(
    model: PreTrainedModel, kind: str, pixels: Tensor, grids: Tensor, tolerance: float = 0.0
) -> tuple[Any, EncodedUnits]:
    with deduplicating(ModelAdapter.of(model), PixelDedup(tolerance)) as done:
        return encoded(model, kind, pixels, grids), done


def by_hand(
    model: PreTrainedModel, pixels: Tensor, grids: Tensor, tolerance: float = 0.0
) -> tuple[list[int], Tensor, list[Tensor]]:
    """The units that stay, and the tokens of all."""
    tower: Any = model.base_model.visual
    in_units = [(frames, rows // 2, columns // 2) for frames, rows, columns in grids.tolist()]
    side = WINDOW if hasattr(tower, "window_size") else None
    instead = redundant_by_hand(pixels.unflatten(0, (-1, 4)).flatten(1), in_units, side, tolerance)
    left = sorted(set(instead))
    with torch.no_grad():
        tokens, deep = tower_by_hand(tower, pixels, grids, left)
    copies = [left.index(unit) for unit in instead]
    return left, tokens[copies], [each[copies] for each in deep]


def same_tokens(output: Any, tokens: Tensor, deep: list[Tensor]) -> bool:
    found = getattr(output, "deepstack_features", None) or []
    assert len(found) == len(deep)
    pairs = [(output.pooler_output, tokens), *zip(found, deep, strict=True)]
    return all(is_rounding((torch.cat(list(one)) - other).abs().max()) for one, other in pairs)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("name", DEDUPLICATED)
def test_units_that_stay_are_encoded_as_if_the_others_were_not_there(name: str, kind: str, count: int) -> None:
    pixels, grids = media(name, kind, count)
    model = built(name)
    left, tokens, deep = by_hand(model, pixels, grids)
    assert 0 < len(left) < len(tokens)
    output, done = deduplicated(model, kind, pixels, grids)
    assert done.left.tolist() == left
    assert [len(each) for each in output.pooler_output] == (grids.prod(dim=-1) // 4).tolist()
    assert same_tokens(output, tokens, deep)
    # And the whole encoder answers otherwise, so that this proves something.
    assert is_different((torch.cat(list(encoded(model, kind, pixels, grids).pooler_output)) - tokens).abs().max())


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("name", DEDUPLICATED)
def test_the_written_out_encoder_is_the_models_own_on_all_units(name: str, kind: str) -> None:
    pixels, grids = media(name, kind, 2)
    model = built(name)
    with torch.no_grad():
        tokens, deep = tower_by_hand(model.base_model.visual, pixels, grids, list(range(len(pixels) // 4)))
    assert same_tokens(encoded(model, kind, pixels, grids), tokens, deep)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("name", DEDUPLICATED)
def test_where_nothing_repeats_not_a_bit_changes(name: str, kind: str) -> None:
    pixels, grids = media(name, kind, 3, colours=None)
    model = built(name)
    expected = encoded(model, kind, pixels, grids)
    output, done = deduplicated(model, kind, pixels, grids)
    assert done.left.equal(torch.arange(len(pixels) // 4))
    assert done.patches.equal(torch.arange(len(pixels)))
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    for one, other in zip(output.pooler_output, expected.pooler_output, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(
        getattr(output, "deepstack_features", None) or [],
        getattr(expected, "deepstack_features", None) or [],
        strict=True,
    ):
        assert torch.equal(torch.cat(list(one)), torch.cat(list(other)))


@pytest.mark.parametrize(
    ("name", "left"),
    [("qwen2_vl", [0, 24]), ("qwen3_vl", [0, 24]), ("qwen2_5_vl", [0, 4, 24, 36])],
)
def test_one_colour_leaves_a_unit_an_image_or_window(name: str, left: list[int]) -> None:
    pixels, grids = media(name, "image", 2, colours=1)  # 4 x 6 and 6 x 3 units
    output, done = deduplicated(built(name), "image", pixels, grids)
    assert done.left.tolist() == left
    first, second = output.pooler_output
    assert torch.equal(second[:12], second[:1].expand(12, -1))
    assert len(first.unique(dim=0)) == len([unit for unit in left if unit < 24])


@pytest.mark.parametrize("name", THREE)
def test_each_frame_of_a_video_is_by_itself(name: str) -> None:
    pixels, grids = media(name, "video", 1, colours=1)  # 3 frames of 2 x 4 units
    _, done = deduplicated(built(name), "video", pixels, grids)
    assert done.left.tolist() == [0, 8, 16]


@pytest.mark.parametrize("name", THREE)
def test_a_tolerance_leaves_fewer(name: str) -> None:
    pixels, grids = media(name, "image", 2)
    noisy = pixels + torch.empty_like(pixels).uniform_(-0.01, 0.01, generator=torch.Generator().manual_seed(0))
    model = built(name)
    _, done = deduplicated(model, "image", noisy, grids)
    assert len(done.left) == len(pixels) // 4
    left, tokens, deep = by_hand(model, noisy, grids, 0.02)
    output, done = deduplicated(model, "image", noisy, grids, 0.02)
    assert done.left.tolist() == left == by_hand(model, pixels, grids)[0]
    assert same_tokens(output, tokens, deep)


@pytest.mark.parametrize("name", DEDUPLICATED)
def test_patches_are_found_where_the_encoder_put_them(name: str) -> None:
    pixels, grids = media(name, "image", 2)
    model = built(name)
    seen: list[Tensor] = []
    tower: Any = model.base_model.visual
    whole = tower.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        encoded(model, "image", pixels, grids)
        _, done = deduplicated(model, "image", pixels, grids)
    finally:
        whole.remove()
    full, short = seen
    assert len(done.patches) == len(full)
    assert len(short) == 4 * len(done.left)
    # In front of the first block a patch is its pixels, and its learned position where there is one.
    of_left = torch.cat([4 * done.left + inner for inner in range(4)])
    same = of_left if hasattr(tower, "pos_embed") else torch.arange(len(full))
    assert torch.equal(short[done.patches][same], full[same])


@pytest.mark.parametrize("name", THREE)
def test_flash_attention_is_told_where_shorter_sequences_end(name: str) -> None:
    model = CASES[name].build()
    pixels, grids = media(name, "image", 2)
    expected, _ = deduplicated(model, "image", pixels, grids)
    longest: list[tuple[int, int]] = []

    def attend(
        _: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *__: Any,
        cu_seq_lens_q: Tensor,
        max_length_q: int,
        **___: Any,
    ) -> tuple[Tensor, None]:
        lengths = cu_seq_lens_q.diff().tolist()
        longest.append((max_length_q, max(lengths)))
        parts = zip(*(each[0].split(lengths, dim=1) for each in (query, key, value)), strict=True)
        found = [(q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v for q, k, v in parts]
        return torch.cat(found, dim=1).transpose(0, 1).unsqueeze(0), None

    AttentionInterface.register("flash_in_plain_code", attend)
    model.base_model.visual.config._attn_implementation = "flash_in_plain_code"
    output, _ = deduplicated(model, "image", pixels, grids)
    assert longest
    assert all(told == there for told, there in longest)
    pairs = zip(output.pooler_output, expected.pooler_output, strict=True)
    assert all(is_rounding((one - other).abs().max()) for one, other in pairs)


@pytest.mark.parametrize("name", THREE)
def test_methods_read_of_a_patch_that_was_not_encoded_what_is_of_the_one_in_its_place(name: str) -> None:
    model = built(name)
    pixels, grids = media(name, "image", 1)
    ids = torch.full((1, len(pixels) // 4), IMAGE)
    inputs = {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grids}
    config = PruningConfig(Curious(), keep_ratio=1.0, encoder=PixelDedup())
    with torch.no_grad():
        (item,) = encode(ModelAdapter.of(model), config, inputs).items
    in_units = [(frames, rows // 2, columns // 2) for frames, rows, columns in grids.tolist()]
    side = WINDOW if hasattr(model.base_model.visual, "window_size") else None
    instead = redundant_by_hand(pixels.unflatten(0, (-1, 4)).flatten(1), in_units, side, 0.0)
    context = item.context
    for values in (context.vision_attention.mT, context.vision_keys.transpose(0, 1), context.patch_features):
        assert len(values) == len(instead)
        assert torch.equal(values, values[instead])
        assert len(values.flatten(1).unique(dim=0)) == len(set(instead))
    candidates = item.candidates
    assert torch.equal(candidates.context.patch_features, context.patch_features[sorted(set(instead))])


@pytest.mark.parametrize("name", THREE)
def test_the_model_is_as_before_on_exit_and_after_an_error(name: str) -> None:
    pixels, grids = media(name, "image", 2)
    model = built(name)
    expected = encoded(model, "image", pixels, grids)
    deduplicated(model, "image", pixels, grids)
    # Pixels that do not fit the grid are for the encoder itself to refuse.
    with pytest.raises((RuntimeError, IndexError)) as refused:
        encoded(model, "image", pixels[:-4], grids)
    with pytest.raises(refused.type) as refused_here:
        deduplicated(model, "image", pixels[:-4], grids)
    assert str(refused_here.value) == str(refused.value)
    again = encoded(model, "image", pixels, grids)
    for one, other in zip(again.pooler_output, expected.pooler_output, strict=True):
        assert torch.equal(one, other)
    tower: Any = model.base_model.visual
    assert not tower._forward_pre_hooks
    assert not tower._forward_hooks


@pytest.mark.parametrize("name", ["llava", "glm4v"])
def test_other_encoders_are_refused(name: str) -> None:
    with (
        pytest.raises(
            UnsupportedModelError, match=r"'pixel-dedup' cannot be used with .* native resolution, as in qwen2_vl"
        ),
        deduplicating(ModelAdapter.of(built(name)), PixelDedup()),
    ):
        pass


@pytest.mark.parametrize("name", THREE)
def test_pixels_are_compared_as_the_encoder_sees_them(name: str) -> None:
    model = CASES[name].build().bfloat16()
    pixels, grids = media(name, "image", 1, colours=1)
    pixels = pixels.sign() * 2  # where bfloat16 has steps of 1/64
    pixels[4:8] *= 1 + 1 / 1024
    _, done = deduplicated(model, "image", pixels, grids)
    assert 1 not in done.left
    pixels[4:8] *= 1 + 1 / 64
    output, done = deduplicated(model, "image", pixels, grids)
    assert 1 in done.left
    assert output.pooler_output[0].dtype == torch.bfloat16
