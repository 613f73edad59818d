"""What a method asks for besides the visual tokens: captured in the vision encoder, or read from the prompt.

`ItemContext` says what there is; the needs that lie inside the LLM are met in `layer_pruning`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from divprune.budget import Budget
from divprune.errors import PruningError, UnsupportedModelError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.clip_space import clip_space, require_clip_of_same_sizes
from divprune.huggingface.encoding.items import Encoding, VisualItem
from divprune.huggingface.encoding.vision_capture import capture_encoder
from divprune.huggingface.families.vision_towers import TOWERS, Tower, tower_of
from divprune.methods.base import Method
from divprune.methods.image_downsampling import ImageDownsampling
from divprune.methods.item_context import ItemContext, Modality
from divprune.methods.merging import MergingMethod
from divprune.methods.vision_inputs import EARLY, VISION_NEEDS, CapturedVision

PIXELS = "pixel_values"


def require_vision_needs(adapter: ModelAdapter, method: Method, has_weights: bool = True) -> None:
    """Refuse a method that reads the vision encoder, for a family whose encoder is not known.

    Args:
        adapter: the model.
        method: the method.
        has_weights: whether the model has weights, to compare with those of a CLIP checkpoint.

    Raises:
        UnsupportedModelError: nothing is known of the family's vision encoder.
        ValueError: the encoder has no layer `method.vision_layer`, or `method.early_vision_layer`.
        CheckpointError: the method's CLIP checkpoint is none, or not that of the encoder.
    """
    tower = _required_tower(adapter, method)
    tower.attention(adapter.model, method.vision_layer)
    if EARLY in method.needs:
        tower.attention(adapter.model, method.early_vision_layer, "early_layer")
    if method.clip_folder and has_weights:
        clip_space(adapter.model, tower, method.clip_folder)
    elif method.clip_folder:
        require_clip_of_same_sizes(adapter.model, method.clip_folder)


def require_pixels(reader: str, inputs: Mapping[str, Any]) -> None:
    """Refuse images that came encoded, where something "reads" or "changes" the vision encoder.

    Raises:
        PruningError: they did.
    """
    if inputs.get("mm_encoder_outputs"):
        raise PruningError(f"{reader} the vision encoder: pass images as pixels, not as mm_encoder_outputs")


@contextmanager
def capturing(adapter: ModelAdapter, method: Method) -> Iterator[list[CapturedVision]]:
    """Capture what a method reads of the vision encoder, one entry for each pass; the model is as before on exit."""
    with capture_encoder(adapter.model, _required_tower(adapter, method), method) as passes:
        yield passes


def with_vision_inputs(
    adapter: ModelAdapter,
    method: Method,
    inputs: Mapping[str, Any],
    encoding: Encoding,
    captured: Sequence[CapturedVision],
) -> Encoding:
    """Hand what was captured, one entry for each of the encoding's outputs, to the items that it is of."""
    tower, model = _required_tower(adapter, method), adapter.model
    device = next(iter(encoding.outputs.values()))["pooler_output"][0].device
    contexts = {
        modality: _all_tokens_context(adapter, tower, method, inputs, modality, each, device)
        for modality, each in zip(encoding.outputs, captured, strict=True)
    }
    if isinstance(method, MergingMethod) and method.merges == "patch_features" and tower.projects_patches:
        project = tower.projector_of(model)
        contexts = {modality: replace(each, project=project) for modality, each in contexts.items()}
    items = [replace(item, context=contexts[item.modality].at(_own_tokens(item))) for item in encoding.items]
    return replace(encoding, items=items)


def with_text_embeddings(
    adapter: ModelAdapter, items: Sequence[VisualItem], inputs: Mapping[str, Any]
) -> list[VisualItem]:
    """Hand the embeddings of its row's instruction tokens to every item."""
    ids: Tensor = inputs["input_ids"]
    indices = instruction_tokens(adapter, items, ids, inputs.get("attention_mask"))
    embed = adapter.model.get_input_embeddings()
    texts = {row: embed(ids[row, own]).float() for row, own in indices.items()}
    return [replace(item, context=replace(item.context, text_embeddings=texts[item.row])) for item in items]


def with_clip_text(
    adapter: ModelAdapter, method: Method, items: Sequence[VisualItem], inputs: Mapping[str, Any]
) -> list[VisualItem]:
    """Hand its row's instruction tokens, read by CLIP's text tower, to every item."""
    ids: Tensor = inputs["input_ids"]
    space = clip_space(adapter.model, _required_tower(adapter, method), method.clip_folder)
    indices = instruction_tokens(adapter, items, ids, inputs.get("attention_mask"))
    texts = {row: space.embed_text(ids[row, own]) for row, own in indices.items()}
    return [replace(item, context=replace(item.context, clip_text=texts[item.row])) for item in items]


def instruction_tokens(
    adapter: ModelAdapter, items: Sequence[VisualItem], input_ids: Tensor, attention_mask: Tensor | None
) -> dict[int, Tensor]:
    """Locate the instruction tokens in the prompt: the text after a row's last image, or all of it if none follows.

    Args:
        adapter: the model.
        items: the call's images and videos.
        input_ids: (B, L).
        attention_mask: (B, L); None if nothing is padded.

    Returns:
        For each row with images (T,) int64 token indices, ascending.
    """
    rows = sorted({item.row for item in items})
    is_text = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool().clone()
    is_text &= ~adapter.placeholder_mask(input_ids)
    indices = {}
    for row in rows:
        last = max(int(item.placeholders[-1]) for item in items if item.row == row)
        everything = is_text[row].nonzero().squeeze(1)
        after = everything[everything > last]
        indices[row] = after if len(after) else everything
    return indices


def downsampled_inputs(
    adapter: ModelAdapter, method: ImageDownsampling, inputs: Mapping[str, Any], budget: Budget
) -> dict[str, Any]:
    """Downsample the images of a call before they are encoded, for models whose images all have one size.

    Raises:
        PruningError: the images are not of one size, one grid of tokens each.
    """
    pixels = inputs.get(PIXELS)
    others = [
        name for name in ("image_sizes", "pixel_values_videos", "mm_encoder_outputs") if inputs.get(name) is not None
    ]
    if not isinstance(pixels, Tensor) or pixels.ndim != 4 or others:
        seen = ", ".join(others) or f"pixel_values of shape {tuple(getattr(pixels, 'shape', ()))}"
        raise PruningError(
            f"method {method.name!r} needs images of one size, pixel_values (n, channels, height, width), got "
            f"{seen}; {adapter.family.name!r} models may read images at their own size: give the processor smaller "
            "ones instead, by divprune.methods.downsampled(image, keep_ratio), and prune nothing"
        )
    num_tokens = int((inputs["input_ids"] == adapter.placeholder_id("image")).sum()) // len(pixels)
    kept = budget.count(max(1, num_tokens))
    return {**inputs, PIXELS: method.coarsened(pixels, kept / max(1, num_tokens))}


def _required_tower(adapter: ModelAdapter, method: Method) -> Tower:
    tower = tower_of(adapter.model)
    if tower is None:
        raise UnsupportedModelError(
            f"method {method.name!r} needs {', '.join(sorted(method.needs & VISION_NEEDS))}, which this "
            f"{adapter.family.name!r} model cannot supply: its vision encoder is not known; families that can: "
            f"{', '.join(TOWERS)}; or choose a method that needs none of it (see `divprune methods`)"
        )
    return tower


def _own_tokens(item: VisualItem) -> Tensor:
    return torch.arange(len(item.visual_tokens), device=item.visual_tokens.device) + item.start


def _all_tokens_context(
    adapter: ModelAdapter,
    tower: Tower,
    method: Method,
    inputs: Mapping[str, Any],
    modality: Modality,
    captured: CapturedVision,
    device: torch.device,
) -> ItemContext:
    """Join the context of all items of a modality: what was captured of patches, as values of tokens."""
    found = captured.on(device)
    states = found.pop("clip_embeddings", None)
    by_heads = {need: found[need].transpose(0, 1) for need in found.keys() - {"patch_features", "cls_features"}}
    features, per_feature = found.get("patch_features"), tower.patches_per_feature(adapter.model, modality)
    if by_heads:
        num_patches = len(next(iter(by_heads.values())))
    else:
        num_patches = len(cast(Tensor, states)) if features is None else len(features) * per_feature
    of_tokens = partial(tower.token_values, adapter.model, inputs, modality)
    fields: dict[str, Any] = {need: of_tokens(each).transpose(0, 1) for need, each in by_heads.items()}
    if features is not None:
        fields["patch_features"] = of_tokens(features) if per_feature == 1 else features
    if "cls_features" in found:
        of_patches = found["cls_features"].repeat_interleave(num_patches // len(found["cls_features"]), dim=0)
        fields["cls_features"] = of_tokens(of_patches)
    if states is not None:
        space = clip_space(adapter.model, tower, method.clip_folder)
        fields["clip_embeddings"] = of_tokens(space.embed_patches(states))
    has_patch = of_tokens(torch.ones(num_patches, device=device)) > 0
    return ItemContext(has_patch=has_patch, **fields)
