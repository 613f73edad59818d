"""The space into which a CLIP checkpoint puts images and text, for a model whose vision tower is that checkpoint's.

image -> last layer of the vision tower -> **CLIP space** <- question. Multimodal models carry CLIP's vision tower and
neither its text tower nor its projections; those come from the folder that `Method.clip_folder` names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, CLIPModel, PreTrainedModel

from divprune.checkpoint_checks import check_folder
from divprune.errors import CheckpointError, UnsupportedModelError, first_line
from divprune.huggingface.families.vision_towers import Tower

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
COMPARED_ROWS = 16
ROUNDING = 2.0**-8
"""Two roundings of one weight to half types differ by less than this part of it."""


@dataclass(frozen=True)
class ClipSpace:
    """The parts of a CLIP checkpoint that lead from patches and text into one space, and what reads the question.

    Attributes:
        post_layernorm: of the vision tower.
        visual_projection: behind it.
        text_model: the text tower.
        text_projection: behind it.
        tokenizer: the checkpoint's.
        own_tokenizer: the multimodal model's.
    """

    post_layernorm: nn.Module
    visual_projection: nn.Module
    text_model: nn.Module
    text_projection: nn.Module
    tokenizer: Any
    own_tokenizer: Any

    @torch.no_grad()
    def embed_patches(self, states: Tensor) -> Tensor:
        """(P, d_vision) outputs of the tower's last layer -> (P, d_clip) float32, as CLIP does with its CLS token."""
        projection = self.visual_projection.to(states.device)
        normed = self.post_layernorm.to(states.device)(states.to(next(projection.parameters()).dtype))
        return cast(Tensor, projection(normed)).float()

    @torch.no_grad()
    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Embed a question, in segments as long as the text tower reads.

        Args:
            input_ids: (T,) of the multimodal model's own tokenizer.

        Returns:
            (S, d_clip) float32, at least one segment.
        """
        text = self.own_tokenizer.decode(input_ids.tolist(), skip_special_tokens=True).strip()
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        most = cast(Any, self.text_model).config.max_position_embeddings - 2
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        segments = [[start, *ids[first : first + most], end] for first in range(0, max(1, len(ids)), most)]
        # The tower looks back only and answers at the first end: what fills up a row behind it changes nothing.
        rows = [segment + [end] * (len(segments[0]) - len(segment)) for segment in segments]
        tower = self.text_model.to(input_ids.device)
        pooled = tower(input_ids=torch.tensor(rows, device=input_ids.device)).pooler_output
        return cast(Tensor, self.text_projection.to(input_ids.device)(pooled)).float()


_SPACES: WeakKeyDictionary[PreTrainedModel, dict[str, ClipSpace]] = WeakKeyDictionary()
"""By folder, for as long as the model lives: a checkpoint is read and compared once."""


def clip_space(model: PreTrainedModel, tower: Tower, folder: str) -> ClipSpace:
    """Return the space of a CLIP checkpoint, for a model that has its vision tower.

    Args:
        model: the multimodal model.
        tower: its vision encoder.
        folder: of the whole CLIP checkpoint, safetensors and tokenizer included.

    Raises:
        CheckpointError: the folder is no such checkpoint, or its vision tower is not the model's.
        UnsupportedModelError: the model's tower is no CLIP tower, or its own tokenizer cannot be found.
    """
    spaces = _SPACES.setdefault(model, {})
    if folder not in spaces:
        spaces[folder] = _read(model, tower, folder)
    return spaces[folder]


def require_clip_of_same_sizes(model: PreTrainedModel, folder: str) -> Path:
    """Refuse what cannot be the CLIP checkpoint of a model's vision tower, by both configs; errors as `clip_space`.

    Returns:
        The checkpoint's folder.
    """
    own: Any = model.config.vision_config
    if own.model_type != "clip_vision_model":
        raise UnsupportedModelError(f"clip must be left out: this model's vision tower is {own.model_type!r}, no CLIP")
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise CheckpointError(f"clip must be the folder of a CLIP checkpoint, got {folder!r}, which has no config.json")
    check_folder(folder, path)
    config = _loaded(folder, AutoConfig.from_pretrained, path)
    if config.model_type != "clip":
        raise CheckpointError(
            f"clip must be a whole CLIP checkpoint, of type 'clip', got {folder!r} of {config.model_type!r}"
        )
    _require_same_sizes(own, config.vision_config, folder)
    return path


def _read(model: PreTrainedModel, tower: Tower, folder: str) -> ClipSpace:
    path = require_clip_of_same_sizes(model, folder)
    whole, report = _loaded(
        folder, CLIPModel.from_pretrained, path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if report["missing_keys"]:
        raise CheckpointError(f"{folder} is incomplete: weights are missing, such as {min(report['missing_keys'])}")
    _require_same_weights(tower.of(model), whole.vision_model, folder)
    tokenizer = _loaded(folder, AutoTokenizer.from_pretrained, path)
    whole.eval().requires_grad_(False)
    return ClipSpace(
        _parts(whole.vision_model)["post_layernorm"],
        whole.visual_projection,
        whole.text_model,
        whole.text_projection,
        tokenizer,
        _own_tokenizer(model),
    )


def _loaded(name: str, load: Callable[..., Any], path: Path | str, **options: Any) -> Any:
    """Run one step of loading, from local files and without their code; what goes wrong becomes one line."""
    try:
        return load(path, local_files_only=True, trust_remote_code=False, **options)
    # Damaged files raise whatever the parser of the day raises.
    except Exception as error:
        raise CheckpointError(f"cannot load {name}: {first_line(error)}") from None


def _own_tokenizer(model: PreTrainedModel) -> Any:
    name = model.name_or_path or "a model without name_or_path"
    try:
        return _loaded(name, AutoTokenizer.from_pretrained, name)
    except CheckpointError as error:
        raise UnsupportedModelError(
            "clip needs the model's own tokenizer to read the question, and it is not where the model was loaded from "
            f"({error}); save the processor beside the model and load it with from_pretrained"
        ) from None


def _require_same_sizes(own: Any, other: Any, folder: str) -> None:
    differing = [name for name in SIZES if getattr(own, name) != getattr(other, name)]
    if differing:
        seen = ", ".join(f"{name} {getattr(own, name)} and {getattr(other, name)}" for name in differing)
        raise CheckpointError(
            f"clip must be the checkpoint whose vision tower the model has, got {folder!r} of other sizes ({seen}); "
            "for LLaVA-1.5 that is openai/clip-vit-large-patch14-336"
        )


def _require_same_weights(own: nn.Module, other: nn.Module, folder: str) -> None:
    """Compare the first rows of the weights at the tower's two ends, up to rounding."""
    weights: dict[str, Any] = _parts(own)
    others: dict[str, Any] = _parts(other)
    for name in _ends(others):
        weight, expected = (each[name].weight[:COMPARED_ROWS].detach() for each in (weights, others))
        if weight.device.type == "meta":
            raise UnsupportedModelError(
                "the vision tower must be in memory to tell whose it is, got one that is offloaded"
            )
        if not torch.allclose(weight.float().cpu(), expected.float(), rtol=ROUNDING, atol=1e-7):
            raise CheckpointError(
                f"clip must be the checkpoint whose vision tower the model has, got {folder!r}, whose {name} differs: "
                "a tower that was trained further no longer belongs to a text tower"
            )


def _parts(tower: nn.Module) -> dict[str, nn.Module]:
    """Modules of a CLIP vision tower by name, without the wrapper that some versions put around it."""
    return {name.removeprefix("vision_model."): module for name, module in tower.named_modules()}


def _ends(parts: dict[str, nn.Module]) -> list[str]:
    """Name the patch embedding and the last linear layers of the first and the last block."""
    blocks = [name for name in parts if name.endswith("mlp.fc2")]
    return ["embeddings.patch_embedding", blocks[0], blocks[-1]]
