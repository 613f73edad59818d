"""Work out what a prefill costs with and without pruning, from sizes alone: what `divprune flops` shows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from divprune.budget import DEFAULT_KEEP_RATIO, Budget
from divprune.config import Newlines, PruningConfig, Scope, require_scope
from divprune.efficiency.equal_flops import num_keep_for_ratio
from divprune.efficiency.flops import Accounting, Cost, compare, encoded_workloads
from divprune.efficiency.reference_models import (
    ARCHITECTURES,
    PAPER_ARCHITECTURES,
    Architecture,
    architecture_config,
    architecture_shape,
)
from divprune.efficiency.shapes import ModelShape, model_shape
from divprune.efficiency.workloads import Workload, paper_text_lengths, paper_workloads
from divprune.encoder_options import TomeEncoder, encoder_option, require_encoder_method, require_encoder_modality
from divprune.errors import ArgumentError, argument_errors, first_line
from divprune.methods import DivPrune, Method, get_method
from divprune.methods.base import require_modality
from divprune.methods.item_context import Modality

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TERA = 1e12
_TILED = ("llava_next", "llava_next_video")


@dataclass(frozen=True)
class FlopsOptions:
    """Whose prefill is counted, and how.

    Attributes:
        model: a known architecture, such as "llava-1.5-7b", or a config.json or its folder; None for the paper's four.
        method: as `get_method` reads it.
        keep_ratio: fraction of the visual tokens kept; None for the paper's, if nothing else says how many.
        num_keep: how many are kept, instead.
        target_percent: find the number that costs so many percent of the unpruned prefill, instead.
        layer: decoder layer at whose entrance tokens go; None for the method's own.
        text_tokens: of the prompt; None for the paper's data sets, averaged.
        visual_tokens: before pruning; None for the model's.
        accounting: "paper" (its Eq. 5) or "exact" (every product, encoder included).
        scope: what shares the budget, as for `prune`; under "tile" `num_keep` is of each tile.
        newlines: what becomes of image newline tokens, as for `prune`; with "rows" every row is taken to keep a token.
        image_size: width and height of the image, for models that cut it into LLaVA-NeXT's tiles; it tells visual
            tokens, tiles and newline tokens. None for the paper's mean image.
        encoder: an option of the vision encoder, such as "tome:r=8", beside the method; the unpruned prefill is counted
            without it. What it leaves is then what `keep_ratio` is of.
    """

    model: str | None = None
    method: str = "divprune"
    keep_ratio: float | None = None
    num_keep: int | None = None
    target_percent: float | None = None
    layer: int | None = None
    text_tokens: int | None = None
    visual_tokens: int | None = None
    accounting: Accounting = "paper"
    scope: Scope = "item"
    newlines: Newlines = "budget"
    image_size: tuple[int, int] | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class CostedModel:
    """A model and the prompts that its cost is averaged over."""

    title: str
    shape: ModelShape
    workloads: list[Workload]
    keep_ratio: float


@dataclass(frozen=True)
class PrefillCosts:
    """What prefills cost.

    Attributes:
        method: which prunes.
        encoder: an option of the vision encoder beside it; None for none.
        rows: one a model, ready for JSON.
    """

    method: Method
    encoder: TomeEncoder | None
    rows: list[dict[str, Any]]


def prefill_costs(options: FlopsOptions) -> PrefillCosts:
    """Count the FLOPs of a prefill, one row a model.

    Raises:
        ArgumentError: an argument is out of range, or the model or the target cannot be had.
    """
    with argument_errors():
        method = _method(options)
        encoder = _encoder(method, options)
        rows = [_row(model, method, encoder, options) for model in _models(method, options)]
        return PrefillCosts(method, encoder, rows)


def visual_tokens_of(config: PreTrainedConfig, shape: ModelShape) -> int:
    """Return how many visual tokens an image becomes, where that does not depend on the image.

    Raises:
        ArgumentError: it does, or the config does not tell.
    """
    if shape.tower is None or config.model_type != "llava":
        raise ArgumentError(
            f"`visual_tokens` is needed: how many a {config.model_type!r} model makes of an image is not told by its "
            "config alone"
        )
    return shape.tower.projected_tokens


def _method(options: FlopsOptions) -> Method:
    method = get_method(options.method)
    if options.layer is None:
        return method
    if "layer" not in {field.name for field in dataclasses.fields(method)}:
        raise ArgumentError(f"`layer`: method {method.name!r} acts {method.acts} only")
    changed: Any = {"layer": options.layer}
    return dataclasses.replace(method, **changed)


def _encoder(method: Method, options: FlopsOptions) -> TomeEncoder | None:
    if options.encoder is None:
        return None
    found = encoder_option(options.encoder)
    require_encoder_method(found, method)
    if not isinstance(found, TomeEncoder):
        raise ArgumentError(
            f"`encoder`: how many patches {found.name!r} leaves depends on the image, and sizes do not tell; "
            "`divprune bench` measures it on one, and the report of a call counts them (num_encoded)"
        )
    if options.visual_tokens is not None:
        raise ArgumentError(
            "give `encoder` or `visual_tokens`, not both: the sizes of model and image tell how many tokens it leaves"
        )
    return found


def _models(method: Method, options: FlopsOptions) -> list[CostedModel]:
    if options.image_size is not None and options.visual_tokens is not None:
        raise ArgumentError("give `image_size` or `visual_tokens`, not both: the size tells the tokens")
    if options.model is None:
        found = [_fitting(architecture, method, options) for architecture in PAPER_ARCHITECTURES]
        models = [each for each in found if isinstance(each, CostedModel)]
        if not models:
            raise next(each for each in found if isinstance(each, ValueError))
        return models
    for architecture in ARCHITECTURES:
        if options.model.lower() == architecture.name:
            return [_named(architecture, method, options)]
    return [_configured(options.model, options)]


def _fitting(architecture: Architecture, method: Method, options: FlopsOptions) -> CostedModel | ValueError:
    """Return one of the paper's models, or why the settings do not apply to it."""
    try:
        return _named(architecture, method, options)
    except ValueError as error:
        return error


def _named(architecture: Architecture, method: Method, options: FlopsOptions) -> CostedModel:
    shown: Modality = "video" if architecture.frames else "image"
    require_modality(method, shown)
    require_scope(options.scope, shown)
    if options.encoder is not None:
        require_encoder_modality(encoder_option(options.encoder), shown)
    _require_parts(architecture.model_type, options)
    shape = architecture_shape(architecture.name, options.visual_tokens)
    prompts = paper_workloads(architecture)
    if options.image_size is None:
        workloads = [_overridden(workload, options) for workload in prompts]
        return CostedModel(architecture.title, shape, workloads, architecture.keep_ratio)
    if architecture.frames:
        raise ArgumentError(f"`image_size`: {architecture.title} is shown videos in the paper; give `visual_tokens`")
    texts = [workload.num_text_tokens for workload in prompts]
    sized = _of_size(architecture_config(architecture.name), shape, texts, options)
    return CostedModel(architecture.title, *sized, architecture.keep_ratio)


def _configured(name: str, options: FlopsOptions) -> CostedModel:
    config = _read_config(name)
    shape = model_shape(config, num_visual_tokens=options.visual_tokens)
    _require_parts(config.model_type, options)
    if options.image_size is not None:
        return CostedModel(name, *_of_size(config, shape, paper_text_lengths(), options), DEFAULT_KEEP_RATIO)
    if options.scope == "tile":
        raise ArgumentError("`image_size` is needed with `scope` tile: it tells how many tiles an image becomes")
    if options.encoder is not None and config.model_type in _TILED:
        raise ArgumentError("`image_size` is needed with `encoder`: it tells how many tiles an image becomes")
    visual = options.visual_tokens
    if visual is None:
        visual = visual_tokens_of(config, shape)
    workloads = [_overridden(Workload(text, visual), options) for text in paper_text_lengths()]
    return CostedModel(name, shape, workloads, DEFAULT_KEEP_RATIO)


def _require_parts(model_type: str, options: FlopsOptions) -> None:
    """Refuse a scope and newlines that the model's family does not have."""
    if (options.scope, options.newlines) != ("item", "budget"):
        from divprune.huggingface.families.registry import family_named
        from divprune.huggingface.fitting import require_parts

        how = PruningConfig(DivPrune(), scope=options.scope, newlines=options.newlines)
        require_parts(family_named(model_type), how)


def _of_size(
    config: PreTrainedConfig, shape: ModelShape, texts: list[int], options: FlopsOptions
) -> tuple[ModelShape, list[Workload]]:
    """Return a model and its prompts about an image of one size, which says how many tiles its tower reads."""
    from divprune.huggingface.families.anyres_layouts import anyres_counts

    width, height = options.image_size or (0, 0)
    if config.model_type not in _TILED:
        raise ArgumentError(
            f"`image_size` is for models that cut images into LLaVA-NeXT's tiles, got {config.model_type!r}; give "
            "`visual_tokens`"
        )
    if min(width, height) < 1:
        raise ArgumentError(f"`image_size` must be WIDTHxHEIGHT in pixels, at least 1x1, got {width}x{height}")
    found = anyres_counts(config, width, height)
    own = [text if options.text_tokens is None else options.text_tokens for text in texts]
    workloads = [Workload(text, found.num_visual_tokens, found.num_tiles, found.num_newlines) for text in own]
    return dataclasses.replace(shape, encoder_passes=found.num_tiles), workloads


def _overridden(workload: Workload, options: FlopsOptions) -> Workload:
    text, visual = options.text_tokens, options.visual_tokens
    if visual is not None and (options.scope, options.newlines) != ("item", "budget"):
        raise ArgumentError("`visual_tokens` does not tell tiles, frames and newline tokens; give `image_size` instead")
    return dataclasses.replace(
        workload,
        num_text_tokens=workload.num_text_tokens if text is None else text,
        num_visual_tokens=workload.num_visual_tokens if visual is None else visual,
    )


def _read_config(name: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    path = Path(name).expanduser()
    if not path.exists():
        known = ", ".join(architecture.name for architecture in ARCHITECTURES)
        raise ArgumentError(f"`model` {name} is neither one of {known} nor a config.json or the directory of one")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    # Damaged files raise whatever the parser of the day raises.
    except Exception as error:
        raise ArgumentError(f"cannot read the config of {name}: {first_line(error)}") from None
    return config


def _row(model: CostedModel, method: Method, encoder: TomeEncoder | None, options: FlopsOptions) -> dict[str, Any]:
    budget = _budget(model, method, encoder, options)
    how = (options.accounting, options.scope, options.newlines, encoder)
    prompts = encoded_workloads(model.shape, model.workloads, encoder)
    cost = compare(model.shape, model.workloads, method, budget, *how)
    return {
        "model": model.title,
        "method": method.name,
        "accounting": options.accounting,
        "keep_ratio": budget.keep_ratio if budget else None,
        "num_keep": budget.num_keep if budget else None,
        "num_visual_tokens": fmean(each.num_visual_tokens for each in model.workloads),
        "encoder": None if encoder is None else str(encoder),
        "num_encoded": cost.num_encoded,
        "num_kept": None
        if budget is None
        else fmean(each.kept(budget, options.scope, options.newlines) for each in prompts),
        "tokens_per_layer": cost.tokens_per_layer,
        "full_tflop": cost.full_flop / TERA,
        "pruned_tflop": cost.pruned_flop / TERA,
        "ratio_percent": cost.ratio * 100,
        **_parts(cost),
    }


def _parts(cost: Cost) -> dict[str, float | None]:
    parts = {
        "encoder_tflop": cost.encoder_flop,
        "pruned_encoder_tflop": cost.pruned_encoder_flop,
        "selection_tflop": cost.selection_flop,
    }
    return {name: None if flop is None else flop / TERA for name, flop in parts.items()}


def _budget(model: CostedModel, method: Method, encoder: TomeEncoder | None, options: FlopsOptions) -> Budget | None:
    given = (options.keep_ratio, options.num_keep, options.target_percent)
    if sum(value is not None for value in given) > 1:
        raise ArgumentError("give one of `keep_ratio`, `num_keep` and `target_percent`")
    if options.target_percent is not None:
        if (options.scope, options.newlines) != ("item", "budget"):
            raise ArgumentError("`target_percent` is for `scope` item and `newlines` budget; give `num_keep`")
        target = options.target_percent / 100
        if not 0 < target <= 1:
            raise ArgumentError(f"`target_percent` must be in (0, 100], got {options.target_percent}")
        how = (model.shape, model.workloads, method, options.accounting, encoder)
        return Budget(num_keep=num_keep_for_ratio(target, *how))
    keep_ratio = options.keep_ratio
    if keep_ratio is None and options.num_keep is None and method.takes_budget:
        keep_ratio = model.keep_ratio
    with argument_errors():
        return PruningConfig(method, keep_ratio, options.num_keep).budget
