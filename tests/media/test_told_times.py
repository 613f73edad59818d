"""The times that each family's processor tells its model are the true ones, at a constant and at a changing rate."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from string import printable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.video_utils import VideoMetadata

from divprune.media import Medium, load_video
from divprune.prompting import _video_arguments, build_inputs
from tests.media.makers import CHANGING, CONSTANT, write_video

SPECIAL = {"image_token": "<image>", "video_token": "<video>", "audio_token": "<audio>"} | {
    f"{kind}_{end}_token": f"<{kind}_{end}>" for kind in ("vision", "audio") for end in ("bos", "eos", "start", "end")
}
IN_PAIRS = 2


class Loaded(SimpleNamespace):
    """As much of a loaded model as a prompt needs."""

    def __init__(self, processor: Any) -> None:
        config = transformers.LlamaConfig(max_position_embeddings=10**6)
        model = SimpleNamespace(config=config, device="cpu", dtype=torch.float32)
        super().__init__(name="it", processor=processor, model=model)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a character, so that times can be read again."""
    words = ["<unk>", *SPECIAL.values(), *printable]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made.add_special_tokens(list(SPECIAL.values()))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", extra_special_tokens=SPECIAL
    )


def processor(family: str, image_processor: str, video_processor: str, **parts: Any) -> Any:
    class_of: Callable[[str], Any] = lambda name: getattr(transformers, name)  # noqa: E731
    return class_of(f"{family}Processor")(
        image_processor=class_of(image_processor)(),
        video_processor=class_of(video_processor)(),
        tokenizer=tokenizer(),
        **parts,
    )


WRITTEN = {
    # The words before a time, its unit, and which of the times of each pair of frames it is.
    "Qwen3VL": (r"<([\d.]+) seconds>", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor", "mean"),
    "Glm4v": (r"<\|end_of_image\|>([\d.]+)", "Glm4vImageProcessor", "Glm4vVideoProcessor", "first, whole"),
    "Glm46V": (r"<\|end_of_image\|>([\d.]+) seconds", "Glm46VImageProcessor", "Glm46VVideoProcessor", "first"),
    "VideoLlama3": (r"Time ([\d.]+)s:", "VideoLlama3ImageProcessor", "VideoLlama3VideoProcessor", "each"),
}
RATES = {
    # What holds the seconds between pairs of frames.
    "Qwen2_5_VL": ("second_per_grid_ts", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "Qwen2_5Omni": ("video_second_per_grid", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "Qwen3OmniMoe": ("video_second_per_grid", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
}


@pytest.fixture(params=["constant", "changing"])
def medium(request: pytest.FixtureRequest, tmp_path: Path) -> Medium:
    return video(tmp_path / "video.mkv", CONSTANT if request.param == "constant" else CHANGING)


def video(path: Path, times: Sequence[Fraction]) -> Medium:
    found = load_video(write_video(path, times), 8)
    assert found.times == pytest.approx([float(times[index]) for index in found.frame_indices])
    return found


def as_told(times: Sequence[float], how: str) -> list[str]:
    """What a family writes of the times of frames."""
    pairs = list(zip(times[::IN_PAIRS], times[1::IN_PAIRS], strict=True))
    if how == "mean":
        return [f"{(first + second) / 2:.1f}" for first, second in pairs]
    if how == "each":
        return [f"{time:.1f}" for time in times]
    return [f"{first:.1f}" if how == "first" else str(int(first)) for first, _ in pairs]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # transformers' own
@pytest.mark.parametrize("family", WRITTEN)
def test_written_times_are_true(family: str, medium: Medium) -> None:
    pattern, image_processor, video_processor, how = WRITTEN[family]
    made = processor(family, image_processor, video_processor)
    inputs = build_inputs(Loaded(made), [medium], "?")  # type: ignore[arg-type]
    words = "".join(tokenizer().convert_ids_to_tokens(inputs["input_ids"][0].tolist()))
    assert re.findall(pattern, words) == as_told(medium.times, how)


@pytest.mark.parametrize("family", RATES)
def test_the_rate_of_sampled_frames_is_true(family: str, medium: Medium, tmp_path: Path) -> None:
    name, image_processor, video_processor = RATES[family]
    parts = {"feature_extractor": transformers.WhisperFeatureExtractor()} if "Omni" in family else {}
    made = processor(family, image_processor, video_processor, **parts)
    other = video(tmp_path / "other.mkv", [Fraction(index, 2) for index in range(16)])
    inputs = build_inputs(Loaded(made), [medium, other], "?")  # type: ignore[arg-type]
    expected = [IN_PAIRS * float(each.seconds or 0) / len(each.frames) for each in (medium, other)]
    assert inputs[name].tolist() == pytest.approx(expected)


def test_what_every_other_family_derives_times_from_is_true(medium: Medium) -> None:
    (facts,) = _video_arguments([medium])["video_metadata"]
    metadata = VideoMetadata(**facts)
    seconds = medium.seconds or 0
    assert metadata.timestamps == pytest.approx(list(medium.times))
    assert metadata.sampled_fps == pytest.approx(len(medium.frames) / seconds)
    assert metadata.duration == seconds
    # Some take the milliseconds between frames for whole.
    rate = metadata.fps or 0
    assert 1000 / rate == int(1000 / rate)
