"""What methods say of images and videos is what they do."""

import pytest

from divprune.methods import available_methods
from tests.methods.contexts import full_item, made

ALONE = [info.name for info in available_methods() if info.modalities == ("video",)]


def test_some_methods_take_videos_alone() -> None:
    assert "evs" in ALONE
    assert {info.modalities for info in available_methods()} == {("video",), ("image", "video")}


@pytest.mark.parametrize("name", [info.name for info in available_methods() if info.name != "downsampling"])
def test_methods_for_videos_alone_refuse_images_and_others_do_not(name: str) -> None:
    visual_tokens, context = full_item((3, 2, 10), kind="image")
    method = made(name)
    refused = False
    try:
        method.select(visual_tokens, 5, context)
    except ValueError as error:
        refused = "compares the frames of a video" in str(error)
    assert refused == (name in ALONE)
