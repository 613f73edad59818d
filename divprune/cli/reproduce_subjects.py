"""The models that `divprune reproduce` plans for: the paper's by name, any other by its config."""

from pathlib import Path
from typing import TYPE_CHECKING

from divprune.cli.failures import CommandError
from divprune.errors import first_line
from divprune.experiments.paper.presets import Preset
from divprune.experiments.subjects import CHECKPOINTS, Subject, other_subject, paper_subject

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

EMBEDDED = "embedded"


def subjects(preset: Preset, model: str | None, num_visual_tokens: int | None) -> list[Subject]:
    """Return the models of a table: the paper's, or the one that is asked for.

    Raises:
        CommandError: the model's config cannot be read, or does not tell what the plan needs.
        UnsupportedModelError: its family cannot be pruned.
    """
    if model is None:
        return [paper_subject(architecture) for architecture in preset.architectures]
    return [subject_of(model, num_visual_tokens)]


def subject_of(model: str, num_visual_tokens: int | None) -> Subject:
    """Return a model with its sizes.

    Raises:
        CommandError: its config cannot be read, or does not tell how many tokens it makes of a picture.
        UnsupportedModelError: its family cannot be pruned.
    """
    known = architecture_of(model)
    if known is not None:
        return paper_subject(known, None if model.lower() == known else model)
    return _other(model, num_visual_tokens)


def architecture_of(model: str) -> str | None:
    """The paper's model that a checkpoint is, by the last part of its name."""
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()
    names = {checkpoint.rpartition("/")[2].lower(): name for name, checkpoint in CHECKPOINTS.items()}
    return names.get(last, last if last in CHECKPOINTS else None)


def _other(model: str, num_visual_tokens: int | None) -> Subject:
    from divprune.efficiency.shapes import model_shape
    from divprune.huggingface.families.registry import family_named

    config = _config(model)
    family_named(config.model_type)  # refuses what cannot be pruned
    shape = model_shape(config)
    count = num_visual_tokens
    if count is None:
        if shape.tower is None or config.model_type != "llava":
            raise CommandError(
                f"--visual-tokens is needed: how many a {config.model_type!r} model makes of a picture is not told by "
                "its config alone"
            )
        count = shape.tower.projected_tokens
    return other_subject(model, shape, count)


def _config(model: str) -> "PreTrainedConfig":
    from transformers import AutoConfig

    from divprune.embedded import checkpoint_path

    path: str | Path = checkpoint_path() if model == EMBEDDED else model
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
    # Damaged files raise whatever the parser of the day raises, and an unreachable hub whatever it likes.
    except Exception as error:
        known = ", ".join((EMBEDDED, *CHECKPOINTS))
        reason = f"it is none of {known}, and its config cannot be read"
        raise CommandError(f"--model {model}: {reason}: {first_line(error)}") from None
    return config
