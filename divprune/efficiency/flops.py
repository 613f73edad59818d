"""What a prefill costs in floating-point operations, by the paper's formula or exactly.

image -> **visual tokens -> selection -> prompt -> LLM prefill**. "paper" is Eq. 5 of DivPrune (CVPR 2025,
arXiv 2503.02175), which counts multiply-accumulates of the language model with a two-product feed-forward block. The
paper prints a minus before its attention term; only a plus gives its numbers. "exact" counts every matrix product, two
operations per multiply-accumulate, vision tower and selection included, as torch's counter does. An option of the
encoder (`encoder="tome:r=8"`) makes the tower cheaper, and leaves fewer tokens to select from.
"""

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from divprune.budget import Budget
from divprune.config import Newlines, Scope
from divprune.efficiency.schedule import DropSchedule, schedule_of
from divprune.efficiency.shapes import GATED_DECODERS, LanguageShape, ModelShape, TowerShape
from divprune.efficiency.workloads import Workload
from divprune.encoder_options import TomeEncoder
from divprune.errors import UnsupportedModelError
from divprune.methods import DART, PACT, DivPrune, MergingMethod, Method
from divprune.methods.dart import PIVOTS

Accounting = Literal["paper", "exact"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a prefill, in operations, unpruned and pruned; means over the prompts that were asked about.

    Attributes:
        full_flop: unpruned.
        pruned_flop: pruned, encoder and selection included where the accounting counts them.
        ratio: mean of the prompts' own ratios pruned / full, as in the paper.
        encoder_flop: the part of `full_flop` that vision tower and projector take; None where it is not counted.
        pruned_encoder_flop: the same of `pruned_flop`; another number with an encoder option alone.
        selection_flop: the part of `pruned_flop` that the choice takes; None where it is not counted.
        tokens_per_layer: visual tokens that a decoder layer sees after pruning, on average over layers.
        num_encoded: visual tokens to select from: all, or what an encoder option leaves, at most (see
            `Workload.encoded`).
    """

    full_flop: float
    pruned_flop: float
    ratio: float
    encoder_flop: float | None
    pruned_encoder_flop: float | None
    selection_flop: float | None
    tokens_per_layer: float
    num_encoded: float


def compare(
    shape: ModelShape,
    workloads: list[Workload],
    method: Method,
    budget: Budget | None,
    accounting: Accounting,
    scope: Scope = "item",
    newlines: Newlines = "budget",
    encoder: TomeEncoder | None = None,
) -> Cost:
    """Work out what a method saves, as a mean over prompts.

    Args:
        shape: of the model.
        workloads: the prompts, at least one.
        method: any method.
        budget: how many tokens it keeps; None if it says so itself.
        accounting: "paper" or "exact".
        scope: what shares the budget, as for `prune`.
        newlines: what becomes of newline tokens, as for `prune`.
        encoder: an option of the vision encoder, whose tokens the method and the budget are then of.

    Raises:
        ValueError: the method drops at a layer that the model does not have, or the budget or `encoder` does not fit.
        UnsupportedModelError: "exact" does not know this model's layers, or `encoder` not its tower.
    """
    exact = accounting == "exact"
    whole = less = None
    if exact and shape.tower is not None:
        whole, less = (shape.encoder_passes * encoder_flop(shape.tower, option) for option in (None, encoder))
    full, pruned, selection, tokens = [], [], [], []
    seen = encoded_workloads(shape, workloads, encoder)
    for workload, prompt in zip(workloads, seen, strict=True):
        own = None if budget is None else Budget(num_keep=prompt.kept(budget, scope, newlines))
        schedule = schedule_of(method, own, prompt.num_visual_tokens)
        text = workload.num_text_tokens
        num_groups = {"tile": workload.num_tiles, "frame": workload.num_frames}.get(scope, 1)
        tokens.append(fmean(schedule.counts(shape.language.num_layers)))
        selection.append(selection_flop(shape.language, method, schedule, text, num_groups) if exact else 0.0)
        unpruned = prefill_flop(shape.language, text, DropSchedule(workload.num_visual_tokens), accounting)
        full.append(unpruned + (whole or 0.0))
        pruned.append(prefill_flop(shape.language, text, schedule, accounting) + (less or 0.0) + selection[-1])
    ratios = [after / before for before, after in zip(full, pruned, strict=True)]
    chosen, num_encoded = fmean(selection) if exact else None, fmean(prompt.num_visual_tokens for prompt in seen)
    return Cost(fmean(full), fmean(pruned), fmean(ratios), whole, less, chosen, fmean(tokens), num_encoded)


def encoded_workloads(shape: ModelShape, workloads: list[Workload], encoder: TomeEncoder | None) -> list[Workload]:
    """Return prompts as methods see them, with the visual tokens that the encoder leaves; errors as for `compare`."""
    if encoder is None:
        return workloads
    if shape.tower is None:
        raise UnsupportedModelError(f"encoder option {encoder.name!r}: this model's vision encoder is not known")
    left = shape.tower.patches_left(encoder)[-1]
    return [workload.encoded(shape.tower.num_patches, left) for workload in workloads]


def prefill_flop(
    shape: LanguageShape, num_text_tokens: int, schedule: DropSchedule, accounting: Accounting = "exact"
) -> float:
    """Return the operations of the language model's pass over one prompt.

    Args:
        shape: T layers, d and m wide.
        num_text_tokens: N.
        schedule: the visual tokens in each layer.
        accounting: "paper": the sum over layers of 4 n d^2 + 2 n^2 d + 2 n d m multiply-accumulates (Eq. 5), with n
            tokens in the layer. "exact": 4 n d w + 4 n d v + 4 n^2 w + 6 n d m operations with w = head size x heads
            and v = head size x key-value heads, and 2 d x vocabulary for the logits of the last token.

    Raises:
        ValueError: the schedule names a layer that the model does not have.
        UnsupportedModelError: "exact" does not know this model's layers.
    """
    lengths = [num_text_tokens + count for count in schedule.counts(shape.num_layers)]
    if accounting == "paper":
        return float(sum(_paper_layer(shape, length) for length in lengths))
    if shape.model_type not in GATED_DECODERS:
        raise UnsupportedModelError(
            f"accounting must be 'paper' for a {shape.model_type!r} language model; the exact one knows "
            f"{', '.join(GATED_DECODERS)}"
        )
    return float(sum(_exact_layer(shape, length) for length in lengths)) + 2 * shape.hidden_size * shape.vocabulary_size


def _paper_layer(shape: LanguageShape, length: int) -> int:
    width = shape.hidden_size
    return 4 * length * width**2 + 2 * length**2 * width + 2 * length * width * shape.intermediate_size


def _exact_layer(shape: LanguageShape, length: int) -> int:
    queries, keys = shape.head_size * shape.num_heads, shape.head_size * shape.num_key_value_heads
    projections = 2 * length * shape.hidden_size * (2 * queries + 2 * keys)
    attention = 4 * length**2 * queries
    return projections + attention + 6 * length * shape.hidden_size * shape.intermediate_size


def encoder_flop(shape: TowerShape, option: TomeEncoder | None = None) -> float:
    """Return the operations of vision tower and projector on one image, tile or frame.

    Windows are taken to be whole; at the edge of an image they may not be, and cost less.

    Args:
        shape: of the tower.
        option: merges patches inside it: attention sees those that enter a layer, the feed-forward block and all that
            follows those that leave it. Layers behind the one that the projector reads are not computed.

    Raises:
        UnsupportedModelError: patches of this tower cannot be merged.
        ValueError: not so many of them.
    """
    width, tokens = shape.hidden_size, shape.num_tokens
    embedding = 2 * shape.num_patches * shape.patch_values * width
    if option is None:
        seen = shape.num_windowed_layers * min(shape.window_patches, tokens)
        seen += (shape.num_layers - shape.num_windowed_layers) * tokens
        layers = shape.num_layers * (8 * tokens * width**2 + _feed_forward(shape, tokens)) + 4 * tokens * seen * width
        projected = shape.projected_tokens
    else:
        layers, projected = _merging_layers(shape, option)
        tokens += projected - shape.num_patches
    head = 0
    if shape.has_pooling_head:
        # One query attends to all tokens, and a feed-forward block follows.
        head = 4 * (tokens + 1) * width**2 + 4 * tokens * width + 4 * width * shape.intermediate_size
    between = shape.projector_hidden_size or shape.output_size
    projector = 2 * projected * between * (shape.projector_input_size + shape.output_size)
    return float(embedding + layers + head + shape.num_projectors * projector)


def _merging_layers(shape: TowerShape, option: TomeEncoder) -> tuple[int, int]:
    """Return the operations of the layers in which patches are merged, and how many patches are left behind them."""
    left, total = shape.patches_left(option), 0
    others = shape.num_tokens - shape.num_patches
    for before, after in pairwise([shape.num_patches, *left]):
        tokens = before + others
        total += 8 * tokens * shape.hidden_size**2 + 4 * tokens**2 * shape.hidden_size
        if after < before:
            # Every second patch is compared with each of the others.
            total += 2 * (before // 2) * (before - before // 2) * shape.head_size
        total += _feed_forward(shape, after + others)
    return total, left[-1]


def _feed_forward(shape: TowerShape, num_tokens: int) -> int:
    return 2 * shape.feed_forward_products * num_tokens * shape.hidden_size * shape.intermediate_size


def selection_flop(
    shape: LanguageShape, method: Method, schedule: DropSchedule, num_text_tokens: int, num_groups: int = 1
) -> float:
    """Return the operations of a choice, at most: all pairwise products for DivPrune, one row of attention for FastV.

    Methods inside the LLM pay for the attention that they read (its queries, keys and values too, where it is that of
    the layer which drops), for merging, and for comparing keys (PACT). Comparisons of numbers and sorting are no
    floating-point products and count as none. Where the tokens are chosen in `num_groups` groups of one size (tiles,
    frames), DivPrune compares those of each group.
    """
    total, before = 0, schedule.num_visual_tokens
    for layer, left in schedule.drops:
        if isinstance(method, DivPrune):
            total += 2 * before**2 // num_groups * shape.hidden_size
        if isinstance(method, DART):
            total += 2 * (2 * PIVOTS) * before * shape.hidden_size
        if isinstance(method, PACT):
            total += 2 * before**2 * shape.head_size * shape.num_key_value_heads
        if isinstance(method, MergingMethod) and method.layers:
            total += 2 * left * before * shape.hidden_size
        rows_read = {"attention": 1, "text_attention": num_text_tokens}
        rows_read |= dict.fromkeys(("visual_attention", "visual_peak_attention"), before)
        rows = sum(count for need, count in rows_read.items() if need in method.needs_at(layer))
        total += 2 * rows * (before + num_text_tokens) * shape.head_size * shape.num_heads
        if rows and method.decoder_layer == "entering":
            projected = shape.head_size * (shape.num_heads + 2 * shape.num_key_value_heads)
            total += 2 * (before + num_text_tokens) * shape.hidden_size * projected
        before = left
    return float(total)
