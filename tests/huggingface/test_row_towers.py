"""HY 4: what methods hear of an encoder whose tokens are rows of merged patches, each with a newline behind it."""

import pytest
import torch

from divprune import prune
from divprune.huggingface.families.vision_towers import NO_PATCH, TOWERS
from tests.support.encoding import Curious, encoded_for
from tests.support.models.every_family import CASES, Row, make_inputs

NAME = "hy_v4_vl"


@pytest.mark.parametrize("kind", ["image", "video"])
def test_tokens_are_made_from_their_patches_and_hear_what_these_hear(kind: str) -> None:
    rows: list[Row] = [[1, 5, kind, 6, 7, 8], [1, 9, kind, 10, 11, kind, 12]]
    model = CASES[NAME].build()
    tower, vision = TOWERS[NAME], model.model.vision_tower
    inputs = make_inputs(CASES[NAME], model, rows)
    with torch.no_grad():
        items = encoded_for(model, inputs, Curious()).items
        grids = inputs[f"{kind}_grid_thw"]
        pixels = inputs["pixel_values" if kind == "image" else "pixel_values_videos"]
        hidden = vision(pixels, grid_thw=grids).last_hidden_state[0]
        patches = tower.patches(model, inputs, kind, len(hidden))
        has_patch = patches[:, 0] != NO_PATCH
        assert patches[has_patch].flatten().sort().values.equal(torch.arange(len(hidden)))
        # The patches of all tokens as one image of two rows.
        grouped = hidden[patches[has_patch]].unflatten(1, (2, 2)).transpose(0, 1).flatten(0, 2)
        projected = tower.projector_of(model)(grouped[None], size=(2, len(grouped) // 2))[0, :-1]
    tokens = torch.cat([item.visual_tokens for item in items])
    assert (projected - tokens[has_patch]).abs().max() < 1e-5
    assert (tokens[~has_patch] == vision.patch_merger.image_newline).all()
    clues = [item.context for item in items if item.context is not None]
    assert torch.cat([each.has_patch for each in clues]).equal(has_patch)
    features = torch.cat([each.patch_features for each in clues])
    assert (features[has_patch] - hidden[patches[has_patch]].mean(dim=1)).abs().max() < 1e-5
    for grid, each in zip(grids.tolist(), clues, strict=True):
        # Every frame's probabilities sum to 1 over its patches, four of which are one token.
        assert each.vision_attention.sum(dim=1).tolist() == pytest.approx([0.25 * grid[0]] * 4, abs=1e-5)
        assert each.vision_attention[:, ~each.has_patch].abs().max() == 0


@pytest.mark.parametrize("method", ["visionzip", "scope", "tome", "prumerge", "vispruner"])
def test_methods_that_read_the_encoder_keep_newlines_last(method: str) -> None:
    model = CASES[NAME].build()
    inputs = make_inputs(CASES[NAME], model, [[1, 5, "image", 6, 7, 8]])
    with prune(model, method, num_keep=9) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    (item,) = pruning.last.items
    assert item.num_kept == 9
    assert not item.layout.cells[item.kept_indices, 0].isnan().any()
