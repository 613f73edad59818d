"""The models of a comparison: the paper's four by name, or any other whose sizes are known."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from divprune.efficiency.prefill_flops import visual_tokens_of
from divprune.efficiency.reference_models import architecture_config, get_architecture
from divprune.efficiency.shapes import ModelShape, model_shape
from divprune.efficiency.workloads import Workload, paper_text_tokens, tiled_workload
from divprune.embedded import EMBEDDED_FOLDERS, checkpoint_path
from divprune.errors import ArgumentError, first_line
from divprune.evaluation.datasets import DATA_SETS, data_set
from divprune.huggingface.families.registry import family_named
from divprune.methods.item_context import Modality

CHECKPOINTS: Mapping[str, str] = {
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-1.6-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-next-video-7b": "llava-hf/LLaVA-NeXT-Video-7B-hf",
}
"""The checkpoint of each of the paper's models, by the name of its architecture."""
KEEP_RATIO = 0.098
VIDEO_FRAMES = 8
"""Frames of a video, as in the paper."""


@dataclass(frozen=True)
class Subject:
    """A model whose runs are planned.

    Attributes:
        model: checkpoint directory or hub name.
        title: how tables call it.
        architecture: which of the paper's models it is, so that its runs have printed ones; None for any other.
        shape: its sizes.
        workloads: its mean prompt for each data set, by key; data sets of media that it does not take are left out.
        keep_ratio: the fraction of visual tokens kept where nothing else is said.
        renumbers: whether its pruned prompts can be numbered anew, as the paper does ("compact" positions).
        model_type: its family; None where only its name is known.
    """

    model: str
    title: str
    architecture: str | None
    shape: ModelShape
    workloads: Mapping[str, Workload]
    keep_ratio: float = KEEP_RATIO
    renumbers: bool = True
    model_type: str | None = None

    @property
    def prompts(self) -> list[Workload]:
        """Its mean prompts, over which costs are averaged."""
        return list(self.workloads.values())

    def showing(self, media: Collection[Modality]) -> "Subject":
        """Return the same model with its prompts about these media, with all if it takes none of them."""
        shown = {key: prompt for key, prompt in self.workloads.items() if data_set(key).medium in media}
        return replace(self, workloads=shown) if shown else self


def paper_subject(architecture: str, model: str | None = None) -> Subject:
    """Return one of the paper's models.

    Args:
        architecture: its name, one of `CHECKPOINTS`.
        model: another checkpoint of it, by directory or hub name.

    Raises:
        ValueError: there is no such architecture.
    """
    known = get_architecture(architecture)
    is_video = bool(known.frames)
    shape = model_shape(architecture_config(known.name), known.encoder_passes, pooled_video=is_video)
    sets = [each for each in DATA_SETS if each.medium == ("video" if is_video else "image")]
    prompts = {
        each.key: Workload(paper_text_tokens(each.key), known.num_visual_tokens, num_frames=known.frames or 1)
        if known.num_visual_tokens
        else tiled_workload(each.key)
        for each in sets
    }
    name = model or CHECKPOINTS[known.name]
    return Subject(name, known.title, known.name, shape, prompts, known.keep_ratio, model_type=known.model_type)


def other_subject(
    model: str,
    shape: ModelShape,
    num_visual_tokens: int,
    keep_ratio: float = KEEP_RATIO,
    renumbers: bool = True,
) -> Subject:
    """Return any other model.

    Args:
        model: checkpoint directory or hub name.
        shape: its sizes.
        num_visual_tokens: M of one image; a video is taken for `VIDEO_FRAMES` images.
        keep_ratio: the fraction of visual tokens kept where nothing else is said.
        renumbers: as `Subject.renumbers`.
    """
    counts: dict[Modality, int] = {"image": num_visual_tokens, "video": VIDEO_FRAMES * num_visual_tokens}
    prompts = {each.key: Workload(paper_text_tokens(each.key), counts[each.medium]) for each in DATA_SETS}
    title = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return Subject(model, title, None, shape, prompts, keep_ratio, renumbers)


def named_subject(model: str, title: str) -> Subject:
    """Return a model of which only the name is known: its runs can be compared, not planned."""
    unknown: Any = None
    return Subject(model, title, None, unknown, {})


def subject_of(model: str, num_visual_tokens: int | None) -> Subject:
    """Return a model with its sizes.

    Raises:
        ArgumentError: its config cannot be read, or does not tell how many tokens it makes of an image.
        UnsupportedModelError: its family cannot be pruned.
    """
    known = architecture_of(model)
    if known is not None:
        return paper_subject(known, None if model.lower() == known else model)
    return _other(model, num_visual_tokens)


def shown_as(medium: Modality, model_type: str) -> Modality:
    """Return as what a model of a family is shown a medium: as images, the frames of a video that it does not take."""
    return medium if medium in family_named(model_type).modalities else "image"


def architecture_of(model: str) -> str | None:
    """Return the paper's model that a checkpoint is, by the last part of its name; None for any other."""
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()
    names = {checkpoint.rpartition("/")[2].lower(): name for name, checkpoint in CHECKPOINTS.items()}
    return names.get(last, last if last in CHECKPOINTS else None)


def _other(model: str, num_visual_tokens: int | None) -> Subject:
    config = _config(model)
    family = family_named(config.model_type)
    shape = model_shape(config)
    count = visual_tokens_of(config, shape) if num_visual_tokens is None else num_visual_tokens
    subject = other_subject(model, shape, count, renumbers=not family.has_coordinates)
    return replace(subject, model_type=family.name)


def _config(model: str) -> PreTrainedConfig:
    path: str | Path = checkpoint_path(model) if model in EMBEDDED_FOLDERS else model
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
    # Damaged files raise whatever the parser of the day raises, and an unreachable hub whatever it likes.
    except Exception as error:
        known = ", ".join((*EMBEDDED_FOLDERS, *CHECKPOINTS))
        reason = f"it is none of {known}, and its config cannot be read"
        raise ArgumentError(f"`model` {model[:60]}: {reason}: {first_line(error)[:80]}") from None
    return config
