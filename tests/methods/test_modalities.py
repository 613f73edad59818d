"""What methods say of images and videos is what they do."""

import pytest

from divprune.methods import available_methods
from tests.methods.contexts import full_item, made

ALONE = [info.name for info in available_methods() if info.modalities == ("video",)]


def test_some_methods_take_videos_alone() -> None:
    assert {"dycoke", "evs", "fastvid", "flashvid", "holitom", "prunevid"} <= set(ALONE)
    assert {info.modalities for info in available_methods()} == {("video",), ("image", "video")}


@pytest.mark.parametrize("name", [info.name for info in available_methods() if info.name != "downsampling"])
def test_methods_for_videos_alone_refuse_images_and_others_do_not(name: str) -> None:
    visual_tokens, context = full_item((3, 2, 10), kind="image")
    method = made(name)
    refused = ""
    try:
        method.select(visual_tokens, 5, context)
    except ValueError as error:
        refused = str(error)
    wanted = f"method '{name}' compares the frames of a video, got an item of modality 'image'; choose a method for"
    assert refused.startswith(wanted) == (name in ALONE)
