"""One budget a tile, and what becomes of image newline tokens."""

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from divprune import attach, prune
from divprune.budget import equal_shares
from divprune.config import PruningConfig
from divprune.errors import PruningError
from divprune.huggingface.encoding.items import VisualItem
from divprune.huggingface.families.anyres_layouts import anyres_layout
from divprune.huggingface.selecting import select_items
from divprune.methods import ItemContext, Method
from divprune.methods.item_context import Piece
from tests.support.models.every_family import CASES, IMAGE, make_inputs
from tests.support.reports import pruned


@dataclass(frozen=True)
class LastGiven(Method):
    """Keep the last tokens of a group, the last first, and remember the contexts."""

    name: ClassVar[str] = "last_given"
    reads = frozenset({"grid", "pieces"})
    at: tuple[int, ...] = ()
    contexts: list[ItemContext] = field(default_factory=list, compare=False)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.at

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        self.contexts.append(context)
        return torch.arange(len(visual_tokens)).flip(0)[:num_keep]


LLAVA_NEXT = SimpleNamespace(
    vision_config=SimpleNamespace(image_size=336, patch_size=14),
    image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
)


def next_item(height: int, width: int, count: int) -> VisualItem:
    """An image as LLaVA-1.6 sees it."""
    inputs = {"image_sizes": torch.tensor([[height, width]])}
    layout = partial(anyres_layout, LLAVA_NEXT, inputs, "image", 0, count)
    return VisualItem("image", 0, torch.arange(5, 5 + count), torch.ones(count, 2), start=0, find_layout=layout)


SQUARE = next_item(672, 672, 576 + 48 * 49)
"""The whole image, and 2 x 2 tiles of 24 x 24 patches: 48 rows of 48, each with a newline token."""


def kept(item: VisualItem, **settings: Any) -> Tensor:
    return select_items([item], PruningConfig(LastGiven(), scope="tile", **settings))[0].kept_indices


def by_tile(item: VisualItem, indices: Tensor) -> list[int]:
    return item.layout.tile[indices].bincount().tolist()


@pytest.mark.parametrize("each", [128, 64, 32])
@pytest.mark.parametrize("newlines", ["budget", "keep", "rows"])
def test_published_counts_of_llava_next_come_out(each: int, newlines: Any) -> None:
    """640, 320 and 160 tokens are 128, 64 and 32 of each of five tiles."""
    budgets = [{"num_keep": each}] + [{"keep_ratio": each / 576}] * (newlines != "budget")
    for budget in budgets:
        indices = kept(SQUARE, newlines=newlines, **budget)
        patches = indices[~SQUARE.layout.newlines[indices]]
        if newlines == "budget":
            assert by_tile(SQUARE, indices) == [each] * 5
        else:
            assert by_tile(SQUARE, patches) == [each] * 5
        # The last patches of a tile: 128 are 5 rows of 24 and 8 of another.
        rows = {"budget": 0, "keep": 48, "rows": 2 * -(-each // 24)}[newlines]
        assert newlines == "budget" or len(indices) == 5 * each + rows


def test_a_keep_ratio_is_of_the_image_and_its_remainder_goes_to_the_first_tiles() -> None:
    # 0.1 of 2880 patches and 48 newlines are round(292.8) = 293: 58 each, and 3 more.
    assert by_tile(SQUARE, kept(SQUARE, keep_ratio=0.1)) == [59, 59, 59, 58, 58]
    # Of 2880 patches, 288: 57 each, and 3 more.
    indices = kept(SQUARE, keep_ratio=0.1, newlines="keep")
    assert by_tile(SQUARE, indices[~SQUARE.layout.newlines[indices]]) == [58, 58, 58, 57, 57]
    assert len(indices) == 288 + 48


def test_three_tiles_keep_three_times_as_many() -> None:
    wide = next_item(336, 672, 576 + 24 * 49)
    for newlines in ("budget", "keep"):
        indices = kept(wide, num_keep=128, newlines=newlines)
        patches = indices if newlines == "budget" else indices[~wide.layout.newlines[indices]]
        assert by_tile(wide, patches) == [128] * 3


def test_unpadded_tiles_are_smaller_and_keep_as_many() -> None:
    """600 x 450 pixels on 672 x 672: 672 x 504, so 6 of 48 columns are missing on either side."""
    item = next_item(600, 450, 576 + 48 * 37)
    assert by_tile(item, torch.arange(len(item.placeholders))) == [576, 24 * 18, 24 * 19, 24 * 18, 24 * 19]
    # 0.9 of 2352: round(2116.8) = 2117, 424 and 423 each; tile 1 and 3 hold 432, so all have room.
    assert by_tile(item, kept(item, keep_ratio=0.9)) == [424, 424, 423, 423, 423]
    # 0.95: round(2234.4) = 2234, 447 and 446 each. Tiles 1 and 3 have 432, which leaves 15 + 15 to the others, 10
    # each: 457, 457 and 456. Tile 2 has 456, so one more for tile 0.
    assert by_tile(item, kept(item, keep_ratio=0.95)) == [458, 432, 456, 432, 456]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (7, [9, 9, 9], [3, 2, 2]),
        (2, [9, 9, 9], [1, 1, 0]),
        (9, [1, 9, 9], [1, 4, 4]),
        (10, [1, 9, 2], [1, 7, 2]),
        (12, [1, 9, 2], [1, 9, 2]),
    ],
)
def test_equal_shares(count: int, sizes: list[int], expected: list[int]) -> None:
    assert equal_shares(count, sizes) == expected


def test_fewer_tokens_than_tiles_go_to_the_first() -> None:
    assert by_tile(SQUARE, kept(SQUARE, keep_ratio=0.001)) == [1, 1, 1]


def test_a_tile_is_a_grid_of_its_own() -> None:
    def pieces(newlines: Any) -> list[Any]:
        method = LastGiven()
        select_items([SQUARE], PruningConfig(method, num_keep=3, scope="tile", newlines=newlines))
        return [(context.grid, *(context.pieces or ())) for context in method.contexts]

    whole = ((1, 24, 24), Piece(0, 24, 24, 24))
    assert pieces("keep") == [whole] * 5
    # As tokens of the budget, newlines end the rows of the tiles on the right.
    with_newlines = (None, Piece(0, 24, 24, 25))
    assert pieces("budget") == [whole, whole, with_newlines, whole, with_newlines]


def test_newline_tokens_come_last_in_pick_order() -> None:
    selection = select_items([SQUARE], PruningConfig(LastGiven(), num_keep=2, newlines="rows"))[0]
    # The last two patches of the last row, and its newline token.
    assert selection.selection_order.tolist() == [2926, 2925, 2927]
    assert selection.kept_indices.tolist() == [2925, 2926, 2927]


FAMILIES = ["internvl", "aya_vision", "cohere2_vision", "idefics3", "smolvlm", "aria", "ovis2"]
FAMILIES += ["qianfan_ocr", "perception_lm", "granite_docling"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_encoder_s_entries_are_tiles(name: str) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, [[1, "image", 5], [1, "image", 6, "image", 7]])
    method = LastGiven()
    with prune(model, method, num_keep=3, scope="tile") as pruning, torch.no_grad():
        model(**inputs)
    sizes = {item.num_visual_tokens // (item.num_kept // 3) for item in pruning.last.items}
    assert len(sizes) == 1
    assert max(item.num_kept for item in pruning.last.items) > 3
    size = sizes.pop()
    for item in pruning.last.items:
        assert item.kept_indices.div(size, rounding_mode="floor").bincount().unique().tolist() == [3]


@pytest.mark.parametrize("newlines", ["budget", "keep", "rows"])
@pytest.mark.parametrize("at", [(), (1, 2)], ids=["before the LLM", "inside the LLM"])
@pytest.mark.parametrize("name", ["llava_next", "llava_next_video", "llava_onevision"])
def test_tiles_in_a_model(name: str, at: tuple[int, ...], newlines: Any) -> None:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, [[1, "image", 5]])
    with prune(model, LastGiven(at=at), num_keep=3, scope="tile", newlines=newlines) as pruning, torch.no_grad():
        logits = model(**inputs).logits
    item = pruning.last.items[0]
    is_newline, tile = item.layout.newlines, item.layout.tile
    indices = item.kept_indices
    counted = indices if newlines == "budget" else indices[~is_newline[indices]]
    assert tile[counted].bincount().tolist() == [3] * len(tile.unique())
    rows = item.layout.newline_row
    on_top = is_newline if newlines == "keep" else is_newline & torch.isin(rows, rows[counted])
    if newlines != "budget":
        assert indices[is_newline[indices]].equal(on_top.nonzero().squeeze(1))
    assert logits.shape[1] == inputs["input_ids"].shape[1] - item.num_visual_tokens + item.num_kept


def test_llava_onevision_s_scaled_tokens_have_tiles() -> None:
    case = CASES["llava_onevision"]
    model = case.build()
    inputs = case.media(model, "image", [1]) | {"image_sizes": torch.tensor([[56, 56]])}
    ids = torch.tensor([[1, *[IMAGE] * (16 + 5 * 6), 5]])
    with prune(model, LastGiven(), num_keep=1, scope="tile") as pruning, torch.no_grad():
        model(input_ids=ids, **inputs)
    # 8 x 8 patches of 2 x 2 tiles become 5 x 5 tokens: columns 0 and 1 have their middles at 0.8 and 2.4 of 8, column 2
    # at 4, the first of the second tile.
    tiles = [[1, 1, 2, 2, 2, 2]] * 2 + [[3, 3, 4, 4, 4, 4]] * 3
    assert pruning.last.items[0].layout.tile[16:].view(5, 6).tolist() == tiles


@pytest.mark.parametrize("policy", ["keep", "rows"])
def test_newlines_of_every_scope_and_of_videos(policy: Any) -> None:
    _, _, report = pruned("hy_v4_vl", [[1, "video", 5]], ratio=0.2, scope="frame", newlines=policy)
    item = report.items[0]
    layout, indices = item.layout, item.kept_indices
    patches = indices[~layout.newlines[indices]]
    # Three frames of 2 x 4 patches and 2 newlines: round(0.2 * 8) = 2 of each.
    assert layout.frame[patches].bincount().tolist() == [2, 2, 2]
    rows = layout.newline_row[patches].unique()
    assert len(indices) - len(patches) == (6 if policy == "keep" else len(rows))
    _, _, report = pruned("llava_onevision", [[1, "video", 5]], ratio=0.2, newlines=policy)
    # A video ends in one newline token behind 3 x 4 tokens.
    assert report.items[0].num_kept == round(0.2 * (report.items[0].num_visual_tokens - 1)) + 1


def test_methods_that_read_the_encoder_and_merge_keep_newlines_as_they_are() -> None:
    model, _, report = pruned("llava_next", [[1, "image", 5]], method="visionzip", newlines="keep", scope="tile")
    item = report.items[0]
    is_newline = item.layout.newlines[item.kept_indices]
    assert int(is_newline.sum()) == int(item.layout.newlines.sum())
    assert bool((item.kept_tokens[is_newline] == model.model.image_newline).all())


def test_families_without_tiles_or_newlines_say_so() -> None:
    model = CASES["llava"].build()
    with pytest.raises(
        ValueError, match=r"scope must be 'item', 'frame' or 'sample' for 'llava', got 'tile'.*llava_next"
    ):
        attach(model, keep_ratio=0.5, scope="tile")
    with pytest.raises(ValueError, match=r"newlines must be 'budget' for 'llava', got 'rows'.*llava_next"):
        attach(model, keep_ratio=0.5, newlines="rows")
    with pytest.raises(ValueError, match="newlines must be one of 'budget', 'keep', 'rows', got 'all'"):
        attach(model, keep_ratio=0.5, newlines="all")
    handle = attach(model, keep_ratio=0.5)
    with pytest.raises(ValueError, match="got 'tile'"), handle.override(scope="tile"):
        pass


def test_videos_and_encoded_images_have_no_known_tiles() -> None:
    model = CASES["llava_next_video"].build()
    with prune(model, num_keep=3, scope="tile"), pytest.raises(ValueError, match=r"'frame'.* for a video, got 'tile'"):
        model(**make_inputs(CASES["llava_next_video"], model, [[1, "video", 5]]))
    model = CASES["llava_next"].build()
    inputs = make_inputs(CASES["llava_next"], model, [[1, "image", 5]])
    with torch.no_grad():
        output = model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
    encoded = {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"image": output}}
    for settings in ({"scope": "tile"}, {"newlines": "keep"}):
        with (
            prune(model, num_keep=3, **settings),
            pytest.raises((ValueError, PruningError), match="of this input are not known"),
        ):
            model.generate(**encoded, max_new_tokens=1)
