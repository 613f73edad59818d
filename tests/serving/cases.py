"""The families under test, and the prompts they are asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from divprune import prune
from tests.serving.chat_checkpoint import CONTEXT, chat_processor
from tests.serving.checkpoints import IMAGE
from tests.serving.engines import NUM_TOKENS, Prompt
from tests.serving.reference import KeepRule, Reference, arguments

RATIO = 0.25
SMALL_RATIO = 0.1
SIZES = [(168, 168), (240, 120), (100, 200), (128, 96), (180, 182), (280, 168), (60, 140)]


@dataclass(frozen=True)
class Case:
    """A family.

    Attributes:
        name: Of its checkpoint.
        image: How a prompt spells a picture.
        video: How it spells a video; empty if it reads none.
        items: See `Reference`.
        limits: How many items of a kind a prompt may have.
        engine: Settings of the engine.
    """

    name: str
    image: str = "<image>"
    video: str = ""
    items: Callable[[str, Any, list[Tensor]], list[Tensor]] | None = None
    limits: dict[str, int] = field(default_factory=lambda: {"image": 3})
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        return {"limit_mm_per_prompt": self.limits, **self.engine}


def runs(token: int) -> Callable[[str, Any, list[Tensor]], list[Tensor]]:
    """InternVL: tiles of one picture stand in one run of placeholders."""

    def items(kind: str, inputs: Any, entries: list[Tensor]) -> list[Tensor]:
        columns = (inputs["input_ids"][0] == token).nonzero().squeeze(1)
        breaks = (columns.diff() > 1).nonzero().squeeze(1) + 1
        return list(torch.cat(entries).tensor_split(breaks))

    return items


WRAPPED = "<|vision_start|><|image_pad|><|vision_end|>"
WRAPPED_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
BOTH = {"image": 3, "video": 2}
CASES = {
    case.name: case
    for case in (
        Case("llava"),
        Case("llava_next"),
        Case("llava_onevision", video="<video>", limits=BOTH),
        Case("internvl", items=runs(IMAGE)),
        Case("internvl_chat", items=runs(CONTEXT), engine={"trust_remote_code": True}),
        Case("qwen2_vl", WRAPPED, WRAPPED_VIDEO, limits=BOTH),
        Case("qwen2_5_vl", WRAPPED, WRAPPED_VIDEO, limits=BOTH),
        Case("qwen3_vl", WRAPPED, WRAPPED_VIDEO, limits=BOTH),
    )
}
ONLY_VIDEO = Case("llava_next_video", video="<video>", limits={"video": 1})
VIDEO_CASES = {case.name: case for case in (*CASES.values(), ONLY_VIDEO) if case.video}


def picture(seed: int) -> Image.Image:
    """Coarse noise, so that tokens differ."""
    generator = numpy.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    pixels = generator.integers(0, 256, (7, 7, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def prompts(case: Case) -> list[Prompt]:
    """Six prompts of 0 to 3 pictures. All begin alike, so that a block ends inside the first picture of most."""
    beginning = " ".join(f"word{number}" for number in range(30, 54))
    return [(f"{beginning} {text}", media) for text, media in _questions(case.image)]


def _questions(image: str) -> list[Prompt]:
    return [
        (f"word3 {image} word4 word5 word6", {"image": [picture(0)]}),
        (f"word3 word4 {image} word5 word6 {image} word7 word8", {"image": [picture(1), picture(2)]}),
        ("word9 word8 word7 word6 word5", {"image": []}),
        (f"{image} word11 {image} {image} word12 word13", {"image": [picture(3), picture(4), picture(5)]}),
        (f"word3 {image} word4 word5 word14 word15", {"image": [picture(0)]}),
        (f"word20 word21 word22 {image} word23", {"image": [picture(6)]}),
    ]


def clip_of(seed: int, seconds: float = 0.5) -> tuple[numpy.ndarray, dict[str, Any]]:
    """A video whose frames differ, `seconds` apart, and what is known about it.

    Qwen2.5-VL counts time too. Where a video lasts longer than its frames are wide, vLLM lets the text behind it start
    after its last moment, as the model's authors did, and transformers does not; the default is short enough.
    """
    generator = numpy.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    count = 4 + 2 * (seed % 2)
    frames = [
        Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=numpy.uint8)).resize((width, height))
        for _ in range(count)
    ]
    known = {
        "fps": 1 / seconds, "duration": seconds * count, "total_num_frames": count,
        "frames_indices": list(range(count)), "video_backend": "opencv", "do_sample_frames": False,
    }  # fmt: skip
    return numpy.stack([numpy.asarray(frame) for frame in frames]), known


def video_prompts(case: Case) -> list[Prompt]:
    """Prompts with videos, and with videos and pictures where the family takes both."""
    beginning = " ".join(f"word{number}" for number in range(30, 54))
    asked = [
        (f"word3 {case.video} word4 word5", {"video": [clip_of(0)]}),
        (f"word3 word4 {case.video} word7", {"video": [clip_of(1)]}),
        ("word9 word8 word7", {}),
    ]
    if case.limits.get("video", 0) > 1:
        asked.append((f"{case.video} word11 {case.video} word12", {"video": [clip_of(2), clip_of(4)]}))
    if "image" in case.limits:
        text = f"word13 {case.image} word14 {case.video} word15 {case.image} word16"
        asked.append((text, {"image": [picture(4), picture(1)], "video": [clip_of(5)]}))
    return [(f"{beginning} {text}", media) for text, media in asked]


@cache
def reference(case_name: str, folder: Path) -> Reference:
    items = (CASES | VIDEO_CASES)[case_name].items
    if case_name == "internvl_chat":
        return Reference(folder / "native", items, chat_processor(folder))
    return Reference(folder, items)


def expected(
    case: Case, folder: Path, asked: list[Prompt], keep: KeepRule, compact: bool = False
) -> list[tuple[int, list[int]]]:
    """What the hand-made reference answers."""
    own = reference(case.name, folder)
    return [own.answer(text, media, keep, NUM_TOKENS, compact) for text, media in asked]


def transformers_answers(
    name: str, folder: Path, spec: str, asked: list[Prompt]
) -> tuple[list[Tensor], list[list[int]]]:
    """What `prune` keeps of each item that was not shown before, and answers."""
    own, kept, ids, shown = reference(name, folder), [], [], set()
    with prune(own.model, spec, keep_ratio=RATIO) as pruning:
        for text, media in asked:
            inputs = own.processor(text=text, **arguments(media), return_tensors="pt")
            inputs = {key: value for key, value in inputs.items() if key != "image_num_patches"}
            output = own.model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None)
            ids.append(output[0, inputs["input_ids"].shape[1] :].tolist())
            pixels = [*media.get("image", []), *(frames for frames, _ in media.get("video", []))]
            for item, value in zip(pruning.last.items if pixels else [], pixels, strict=True):
                if value.tobytes() not in shown:
                    kept.append(item.kept_indices)
                shown.add(value.tobytes())
    return kept, ids
