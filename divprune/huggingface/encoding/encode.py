"""Model inputs -> visual tokens per image or video, and where their placeholders stand in the prompt.

The model's own vision encoder and projector run, called the way its family wants it. Whatever else the method asks for
is captured meanwhile (`method_inputs`).
"""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from divprune.config import PruningConfig
from divprune.errors import PruningError
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.encoding.encode_less import encode_less
from divprune.huggingface.encoding.encoder_memory import Remembered, current_memory
from divprune.huggingface.encoding.encoder_output import entry_sizes, even_size, flat_tokens
from divprune.huggingface.encoding.items import Encoding, VisualItem
from divprune.huggingface.encoding.method_inputs import (
    capturing,
    downsampled_inputs,
    require_pixels,
    with_clip_text,
    with_text_embeddings,
    with_vision_inputs,
)
from divprune.huggingface.model_inputs import PIXEL_INPUTS, has_visual_inputs, layout_inputs, modalities_in
from divprune.methods.base import Method
from divprune.methods.image_downsampling import ImageDownsampling
from divprune.methods.item_context import Modality
from divprune.methods.vision_inputs import VISION_NEEDS, CapturedVision

COMPRESSION = "video_compression_mask"
"""VideoLLaMA3's processor says with it which video tokens have no placeholder, because little moves there."""


def encode(adapter: ModelAdapter, config: PruningConfig, inputs: Mapping[str, Any], past_length: int = 0) -> Encoding:
    """Encode the images and videos of a call, and capture what the method asks for in `VisualItem.context`.

    Args:
        adapter: the model to prune.
        config: how to prune.
        inputs: what `generate` or `forward` was called with; `input_ids` (B, L) among it.
        past_length: how many full indices the cache stands for. The call may bring the images of the other tokens
            alone, or those of the whole conversation; only the former become items.

    Raises:
        PruningError: placeholders and features do not match, an item's placeholders span two rows, the family is not
            pruned with videos, or cannot tell the placeholders of images and videos apart and is given both; or the
            images came encoded, and the method reads the vision encoder.
    """
    method = config.method
    if not has_visual_inputs(inputs):
        # A later turn of text alone.
        return _encode(adapter, config, inputs, past_length, [])
    if isinstance(method, ImageDownsampling) and config.budget is not None:
        inputs = downsampled_inputs(adapter, method, inputs, config.budget)
    if method.needs & VISION_NEEDS:
        require_pixels(f"method {method.name!r} reads", inputs)
    if config.encoder is not None:
        require_pixels(f"encoder option '{config.encoder}' changes", inputs)
    captured: list[CapturedVision] = []
    encoding = _encode(adapter, config, inputs, past_length, captured)
    if method.needs & VISION_NEEDS:
        encoding = with_vision_inputs(adapter, method, inputs, encoding, captured)
    if "text_embeddings" in method.needs:
        encoding = replace(encoding, items=with_text_embeddings(adapter, encoding.items, inputs))
    if "clip_text" in method.needs:
        encoding = replace(encoding, items=with_clip_text(adapter, method, encoding.items, inputs))
    return encoding


def seconds_now(device: torch.device) -> float:
    """Read a clock that waits for the device to finish its work first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _encode(
    adapter: ModelAdapter,
    config: PruningConfig,
    inputs: Mapping[str, Any],
    past_length: int,
    captured: list[CapturedVision],
) -> Encoding:
    model, family = adapter.model, adapter.family
    started = seconds_now(model.device)
    outputs: dict[Modality, ModelOutput] = dict(inputs.get("mm_encoder_outputs") or {})
    consumed = {"mm_encoder_outputs"}
    pixels, described = modalities_in(inputs), layout_inputs(inputs)
    encoded: dict[Modality, Tensor] = {}
    for modality in pixels:
        if modality not in family.modalities:
            raise PruningError(
                f"{family.name!r} is pruned with {' and '.join(family.modalities)} inputs, got {modality}s"
            )
        if config.encoder is None:
            outputs[modality], used = _run_encoder(adapter, config.method, modality, inputs, captured)
        else:
            encode_pixels, arguments = _encoder_of(model, modality, inputs)
            less = encode_less(adapter, config.encoder, config.method, modality, inputs, encode_pixels)
            outputs[modality], encoded[modality] = less.output, less.encoded
            captured += [] if less.captured is None else [less.captured]
            used = set(arguments)
        consumed |= used
    seconds = seconds_now(model.device) - started
    if len({family.placeholders[modality] for modality in outputs}) < len(outputs):
        raise PruningError(
            f"images and videos must come in calls of their own: {family.name!r} marks both with one placeholder, and "
            "transformers refuses the mixture"
        )
    placeholders = {modality: inputs["input_ids"] == adapter.placeholder_id(modality) for modality in outputs}
    tokens = {modality: flat_tokens(output["pooler_output"]) for modality, output in outputs.items()}
    entries = {modality: entry_sizes(output) for modality, output in outputs.items()}
    first = _first_column(tokens, placeholders, past_length)
    items = []
    for modality, output in outputs.items():
        placeholders[modality][:, :first] = False
        found = _items(adapter, inputs, modality, output, tokens[modality], entries[modality], placeholders[modality])
        if modality in encoded:
            found = [replace(item, encoded=_own_part(encoded[modality], item)) for item in found]
        if modality in pixels:
            found = _with_layouts(adapter, described, found)
        items += found
    items = [item for item in items if int(item.placeholders[0]) >= past_length]
    return Encoding(outputs, items, consumed, seconds, first)


def _run_encoder(
    adapter: ModelAdapter,
    method: Method,
    modality: Modality,
    inputs: Mapping[str, Any],
    captured: list[CapturedVision],
) -> tuple[ModelOutput, set[str]]:
    """Run the encoder: its output, with the visual tokens that have placeholders, and the inputs it used."""
    encode_pixels, arguments = _encoder_of(adapter.model, modality, inputs)

    def run() -> Remembered:
        if not method.needs & VISION_NEEDS:
            return Remembered(encode_pixels(return_dict=True), None)
        with capturing(adapter, method) as passes:
            output = encode_pixels(return_dict=True)
        (only,) = passes
        return Remembered(output, only)

    memory = current_memory()
    found = run() if memory is None else memory.recall(method, arguments, run, adapter.model.device)
    captured += [] if found.captured is None else [found.captured]
    output = found.output
    if modality == "video" and inputs.get(COMPRESSION) is not None:
        output["pooler_output"] = _compressed(output["pooler_output"], inputs[COMPRESSION])
    return output, arguments.keys() | ({COMPRESSION} if modality == "video" else set())


def _encoder_of(
    model: PreTrainedModel, modality: Modality, inputs: Mapping[str, Any]
) -> tuple[Callable[..., ModelOutput], dict[str, Any]]:
    """Return the encoder of a modality, bound to its inputs, and these."""
    encoder = getattr(model.base_model, f"get_{modality}_features", None)
    if encoder is None:
        # Perception LM encodes the frames of a video as it does the tiles of an image.
        name = next(name for name in PIXEL_INPUTS[modality] if inputs.get(name) is not None)
        return partial(cast(Any, model.base_model).get_image_features, inputs[name]), {name: inputs[name]}
    # As transformers' own generate does: the encoder takes, and uses up, whatever its signature names.
    arguments = {name: inputs[name] for name in inspect.signature(encoder).parameters if name in inputs}
    return partial(encoder, **arguments), arguments


def _compressed(videos: list[Tensor], stays: Tensor) -> list[Tensor]:
    """Tokens (M, d) of each video -> those that `stays`, (total,) bool, says."""
    parts = stays.to(videos[0].device).split([len(video) for video in videos])
    return [video[part] for video, part in zip(videos, parts, strict=True)]


def _first_column(tokens: Mapping[Modality, Tensor], placeholders: Mapping[Modality, Tensor], past_length: int) -> int:
    """Token index from which on there are as many placeholders as visual tokens; `past_length` if there is none."""
    for first in (past_length, 0):
        if all(int(placeholders[modality][:, first:].sum()) == len(each) for modality, each in tokens.items()):
            return first
    return past_length


def _items(
    adapter: ModelAdapter,
    inputs: Mapping[str, Any],
    modality: Modality,
    output: ModelOutput,
    tokens: Tensor,
    entries: list[int],
    placeholder_mask: Tensor,
) -> list[VisualItem]:
    rows, columns = placeholder_mask.nonzero(as_tuple=True)
    if len(rows) != len(tokens):
        raise PruningError(
            f"input_ids must hold one placeholder for each visual token: got {len(rows)} placeholders (id "
            f"{adapter.placeholder_id(modality)}) for {len(tokens)} {modality} tokens "
            f"{entries}; pass text and images through the model's "
            "processor together"
        )
    start, items, entry_size = 0, [], entries[0] if len(set(entries)) == 1 else 0
    # Rows of text alone may come with an empty entry.
    rule = adapter.family.item_sizes
    sizes = entries if rule is None else rule(inputs, modality, output, placeholder_mask)
    sizes = [size for size in sizes if size]
    tile_size = 0 if rule is None or not adapter.family.cuts_tiles else even_size(output)
    for index, (item_rows, item_columns) in enumerate(zip(rows.split(sizes), columns.split(sizes), strict=True)):
        if int(item_rows[0]) != int(item_rows[-1]):
            raise PruningError(
                f"the placeholders of {modality} {index} span rows {int(item_rows[0])} to {int(item_rows[-1])}; "
                "give every row as many placeholders as its images have tokens"
            )
        visual_tokens = tokens[start : start + sizes[index]]
        item = VisualItem(modality, int(item_rows[0]), item_columns, visual_tokens, start, entry_size=entry_size)
        items.append(replace(item, tile_size=tile_size))
        start += sizes[index]
    return items


def _own_part(encoded: Tensor, item: VisualItem) -> Tensor | None:
    """Return those of the tokens that were encoded which are an item's, as its indices; None if all of it was."""
    own = encoded[(encoded >= item.start) & (encoded < item.start + len(item.placeholders))] - item.start
    return None if len(own) == len(item.placeholders) else own


def _with_layouts(adapter: ModelAdapter, described: dict[str, Any], items: list[VisualItem]) -> list[VisualItem]:
    """Items of one modality that can work out where their tokens sit."""
    rule, config = adapter.family.layout, adapter.model.config
    return [
        replace(item, find_layout=partial(rule, config, described, item.modality, index, len(item.placeholders)))
        for index, item in enumerate(items)
    ]
