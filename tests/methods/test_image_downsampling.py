"""Pictures made smaller before they are read."""

import pytest
import torch
from PIL import Image

from divprune import get_method, prune
from divprune.methods import ImageDownsampling, ItemContext, SpatialPooling, downsampled
from tests.support.encoding import encoded_for
from tests.support.models.every_family import CASES, make_inputs


def test_a_picture_keeps_its_share_of_the_pixels() -> None:
    picture = Image.new("RGB", (200, 100))
    assert downsampled(picture, 0.25).size == (100, 50)
    assert downsampled(picture, 1.0).size == (200, 100)
    assert downsampled(picture, 1e-6).size == (1, 1)
    with pytest.raises(ValueError, match="keep_ratio must be in"):
        downsampled(picture, 1.5)


def test_coarse_pictures_have_no_detail_and_keep_their_averages() -> None:
    stripes = torch.arange(16.0).remainder(2).expand(1, 3, 16, 16)
    coarse = ImageDownsampling().coarsened(stripes, 0.0625)
    assert coarse.shape == stripes.shape
    assert (coarse - 0.5).abs().max() < 0.1
    slope = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    assert (ImageDownsampling().coarsened(slope, 0.25) - slope).abs().max() < 0.06
    assert ImageDownsampling().coarsened(stripes, 1.0) is stripes
    assert ImageDownsampling().coarsened(stripes.bfloat16(), 0.3).dtype == torch.bfloat16


def test_tokens_are_those_of_the_coarse_picture_pooled() -> None:
    model, case = CASES["llava"].build(), CASES["llava"]
    inputs = make_inputs(case, model, [[1, 5, "image", 6], [1, "image", 7]])
    with prune(model, "downsampling", num_keep=9) as pruning, torch.no_grad():
        model(**inputs)
    coarse = {**inputs, "pixel_values": ImageDownsampling().coarsened(inputs["pixel_values"], 9 / 36)}
    with torch.no_grad():
        items = encoded_for(model, coarse, get_method("pooling")).items
    for item, report in zip(items, pruning.last.items, strict=True):
        merged = SpatialPooling().merge(item.visual_tokens, 9, ItemContext(grid=(1, 6, 6)))
        assert report.num_kept == 9
        assert (report.kept_tokens - merged.tokens(item.visual_tokens)).abs().max() < 1e-5
