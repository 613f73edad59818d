"""Where each family's tokens sit in the picture."""

import pytest
import torch

from divprune import DivPrune, prune
from divprune.huggingface.families.token_layout import Layout, grid_cells, pieces_of
from divprune.methods.item_context import Piece
from tests.support.models.every_family import CASES, IMAGE, features
from tests.support.reports import pruned

GRIDS = [
    *(
        (name, "image", 1)
        for name in ("llava_pixtral", "vipllava", "video_llava", "mistral3", "paligemma", "gemma3", "apertus1p5")
    ),
    *((name, "image", 2) for name in ("llava_next", "llava_next_video", "llava_onevision")),
    *((name, "video", 1) for name in ("llava_next_video", "llava_onevision", "video_llava")),
    *(
        (name, kind, 1)
        for name in ("gemma4", "qwen2_vl", "qwen3_vl", "qwen3_5", "glm4v", "hy_v4_vl")
        for kind in ("image", "video")
    ),
]


@pytest.mark.parametrize(("name", "kind", "layers"), GRIDS)
def test_the_cells_of_a_frame_tile_the_picture(name: str, kind: str, layers: int) -> None:
    _, _, report = pruned(name, [[1, kind, 5]], ratio=1.0)
    layout = report.items[0].layout
    frames = layout.frame.unique()
    assert len(frames) == (3 if kind == "video" else 1)
    for frame in frames:
        cells = layout.cells[(layout.frame == frame) & ~layout.cells[:, 0].isnan()]
        sizes = cells[:, 2:] - cells[:, :2]
        assert float(sizes.prod(-1).sum()) == pytest.approx(layers, rel=0.05)
        assert cells.amin() == pytest.approx(0, abs=1e-6)
        assert cells.amax() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["internvl", "aya_vision", "idefics3", "smolvlm"])
def test_a_picture_of_one_tile_has_a_layout_and_of_several_has_none(name: str) -> None:
    _, _, report = pruned(name, [[1, "image", 5, "image", 6]], ratio=1.0)
    several, one = report.items
    assert (several.num_visual_tokens, several.layout) == (48, None)
    assert one.layout.grid == (1, 4, 4)


@pytest.mark.parametrize(
    ("kind", "pieces"), [("image", [(0, 4, 6, 7)]), ("video", [(0, 2, 4, 5), (10, 2, 4, 5), (20, 2, 4, 5)])]
)
def test_hy_4_ends_every_row_in_a_newline(kind: str, pieces: list[tuple[int, ...]]) -> None:
    model, _, report = pruned("hy_v4_vl", [[1, kind, 5]], ratio=1.0)
    item = report.items[0]
    _, rows, columns, _ = pieces[0]
    is_newline = torch.tensor(([False] * columns + [True]) * rows * len(pieces))
    assert item.layout.cells[:, 0].isnan().equal(is_newline)
    newline = model.model.vision_tower.patch_merger.image_newline
    assert (item.kept_tokens == newline).all(dim=-1).equal(is_newline)
    assert item.layout.canvas == (columns * 4, rows * 4)
    found = pieces_of(item.layout, len(is_newline), len(is_newline))
    assert [(piece.start, piece.rows, piece.columns, piece.stride) for piece in found] == pieces


def test_one_row_is_no_square() -> None:
    cells = torch.cat([grid_cells(1, 4), torch.full((1, 4), torch.nan)])
    layout = Layout(cells, torch.zeros(5, dtype=torch.int64), (16, 4))
    assert pieces_of(layout, 5, 5) == (Piece(0, 1, 4, 4),)


def test_llava_onevision_scales_many_tiles_down() -> None:
    case = CASES["llava_onevision"]
    model = case.build()
    inputs = case.media(model, "image", [1]) | {"image_sizes": torch.tensor([[56, 56]])}
    count = len(features(case, model, "image", inputs)[0])
    # 8 x 8 patches are more than 1.1 squared times the 2 x 16 allowed: 5 x 5, with a newline a row, behind 4 x 4.
    assert count == 16 + 5 * 6
    ids = torch.tensor([[1, *[IMAGE] * count, 5]])
    with prune(model, DivPrune(), keep_ratio=1.0) as pruning:
        model.generate(input_ids=ids, **inputs, max_new_tokens=1)
    boxes = pruning.last.items[0].boxes()[16:]
    assert [box is None for box in boxes] == ([False] * 5 + [True]) * 5
    assert boxes[-2][1:] == pytest.approx((44.8, 44.8, 56, 56))
