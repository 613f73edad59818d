"""Processors without the packages of their video part."""

from pathlib import Path
from typing import Any, NoReturn

import numpy
import pytest
import torch
import transformers
from PIL import Image

from divprune.checkpoint_processors import read_processor
from divprune.errors import CheckpointError, MissingDependencyError
from tests.support import checkpoint_writers

REASON = "Qwen2VLVideoProcessor requires the Torchvision library but it was not found in your environment."


def raising(reason: str) -> Any:
    def load(*arguments: Any, **options: Any) -> NoReturn:
        raise ImportError(reason)

    return load


@pytest.mark.parametrize("write", [checkpoint_writers.write_qwen2_5_vl, checkpoint_writers.write_llava_next_video])
def test_images_need_no_video_processor(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "model")
    whole = read_processor(path)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", raising(REASON))
    monkeypatch.setattr(transformers.AutoVideoProcessor, "from_pretrained", raising(REASON))
    for_images = read_processor(path)
    assert type(for_images).__name__ == type(whole).__name__
    assert "video_processor" not in str(for_images.to_dict())
    assert for_images.chat_template == whole.chat_template
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    arguments = {"text": f"USER: {whole.image_token} what?", "images": [image], "return_tensors": "pt"}
    expected, found = whole(**arguments), for_images(**arguments)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    video = numpy.zeros((4, 56, 56, 3), dtype=numpy.uint8)
    with pytest.raises(MissingDependencyError, match=r"pip install 'divprune\[video\]'"):
        for_images(text=f"USER: {whole.video_token} what?", videos=[video], return_tensors="pt")


def test_other_packages_are_missed_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint_writers.write_llava(tmp_path / "model")
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", raising("needs sentencepiece"))
    with pytest.raises(ImportError, match="sentencepiece"):
        read_processor(path)
    # A processor without a video part is not missing torchvision for it.
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", raising(REASON))
    with pytest.raises(ImportError, match="Torchvision"):
        read_processor(path)


def test_a_text_model_has_no_processor_for_images(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no processor for images"):
        read_processor(checkpoint_writers.write_text_model(tmp_path / "text"))
