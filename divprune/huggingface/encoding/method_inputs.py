"""Encoding pictures for a method: the visual tokens and whatever else it asks for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.budget import Budget
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.encoding.clues import Clues
from divprune.huggingface.encoding.coarser import coarser_inputs
from divprune.huggingface.encoding.encode import Encoding, VisualItem, encode
from divprune.huggingface.encoding.texts import text_columns
from divprune.huggingface.encoding.vision_capture import VISION_NEEDS, listening
from divprune.huggingface.families.registry import Family
from divprune.huggingface.families.vision_towers import NO_PATCH, TOWERS, Tower, tower_of
from divprune.huggingface.model_inputs import Kind
from divprune.methods.base import Method
from divprune.methods.image_downsampling import ImageDownsampling
from divprune.methods.merging import MergingMethod


def require_supply(model: PreTrainedModel, family: Family, method: Method) -> None:
    """Refuses a method whose needs the model's family cannot meet.

    Raises:
        UnsupportedModelError: nothing is known of the family's vision encoder.
        ValueError: the encoder has no layer `method.vision_layer`.
    """
    wanted = method.needs & VISION_NEEDS
    if wanted:
        _required_tower(model, family, method).attention(model, method.vision_layer)


def encode_for(
    method: Method,
    model: PreTrainedModel,
    family: Family,
    inputs: Mapping[str, Any],
    budget: Budget | None = None,
    past_length: int = 0,
) -> Encoding:
    """As `encode`, with the clues that the method asks for in `VisualItem.clues`.

    Args:
        method: the pruning method.
        model: the model to prune.
        family: its family.
        inputs: as for `encode`.
        budget: how many tokens stay, for methods that make the pictures coarser first.
        past_length: as for `encode`.

    Raises:
        PruningError: the pictures came encoded, and the method would have to listen while they are; or they are of a
            kind that it cannot make coarser.
    """
    if isinstance(method, ImageDownsampling) and budget is not None:
        inputs = coarser_inputs(method, model, family, inputs, budget)
    if not method.needs - {"grid"}:
        return encode(model, family, inputs, past_length)
    if method.needs & VISION_NEEDS:
        encoding = _encode_listening(method, model, family, inputs, past_length)
    else:
        encoding = encode(model, family, inputs, past_length)
    if "text_embeddings" in method.needs:
        encoding = replace(encoding, items=_with_texts(model, family, encoding.items, inputs))
    return encoding


def _required_tower(model: PreTrainedModel, family: Family, method: Method) -> Tower:
    tower = tower_of(model)
    if tower is None:
        raise UnsupportedModelError(
            f"method {method.name!r} needs {', '.join(sorted(method.needs & VISION_NEEDS))}, which this "
            f"{family.name!r} model cannot supply: its vision encoder is not known; families that can: "
            f"{', '.join(TOWERS)}; or choose a method that needs none of it (see `divprune methods`)"
        )
    return tower


def _encode_listening(
    method: Method, model: PreTrainedModel, family: Family, inputs: Mapping[str, Any], past_length: int
) -> Encoding:
    if inputs.get("mm_encoder_outputs"):
        raise PruningError(
            f"method {method.name!r} reads the vision encoder: pass pictures as pixels, not as mm_encoder_outputs"
        )
    tower = _required_tower(model, family, method)
    with listening(model, tower, method) as passes:
        encoding = encode(model, family, inputs, past_length)
    device = next(iter(encoding.outputs.values()))["pooler_output"][0].device
    heard = {kind: each.on(device) for kind, each in zip(encoding.outputs, passes, strict=True)}
    clues = {kind: _clues(model, tower, inputs, kind, *each, device) for kind, each in heard.items()}
    if isinstance(method, MergingMethod) and method.merges == "patch_features" and tower.projects_patches:
        project = tower.projector_of(model)
        clues = {kind: replace(each, project=project) for kind, each in clues.items()}
    items = [replace(item, clues=clues[item.kind].at(_own_tokens(item))) for item in encoding.items]
    return replace(encoding, items=items)


def _own_tokens(item: VisualItem) -> Tensor:
    return torch.arange(len(item.visual_tokens), device=item.visual_tokens.device) + item.start


def _clues(
    model: PreTrainedModel,
    tower: Tower,
    inputs: Mapping[str, Any],
    kind: Kind,
    attention: Tensor | None,
    keys: Tensor | None,
    features: Tensor | None,
    device: torch.device,
) -> Clues:
    """Clues of all items of a kind together, from patches to tokens; of what was heard, see `Heard.on`."""
    if keys is not None:
        num_patches = keys.shape[1]
    elif attention is not None:
        num_patches = attention.shape[1]
    else:
        num_patches = len(cast(Tensor, features)) * tower.patches_per_feature(model)
    patches = tower.patches(model, inputs, kind, num_patches)
    if features is not None and tower.patches_per_feature(model) == 1:
        features = _of_tokens(features, patches)
    return Clues(
        has_patch=(patches[:, 0] != NO_PATCH).to(device),
        vision_attention=None if attention is None else _of_tokens(attention.mT, patches).mT,
        vision_keys=None if keys is None else _of_tokens(keys.transpose(0, 1), patches).transpose(0, 1),
        patch_features=features,
    )


def _of_tokens(values: Tensor, patches: Tensor) -> Tensor:
    """Values of patches (P, ...) -> the mean over each token's patches (total, ...)."""
    patches = patches.to(values.device)
    mean = values[patches.clamp(min=0)].mean(dim=1)
    outside = (patches[:, 0] == NO_PATCH).view(-1, *[1] * (mean.ndim - 1))
    return mean.masked_fill(outside, 0.0)


def _with_texts(
    model: PreTrainedModel, family: Family, items: list[VisualItem], inputs: Mapping[str, Any]
) -> list[VisualItem]:
    ids: Tensor = inputs["input_ids"]
    columns = text_columns(model, family, items, ids, inputs.get("attention_mask"))
    texts = {row: model.get_input_embeddings()(ids[row, own]).float() for row, own in columns.items()}
    return [replace(item, clues=replace(item.clues or Clues(), text_embeddings=texts[item.row])) for item in items]
