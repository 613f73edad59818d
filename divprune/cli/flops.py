"""`divprune flops`: work out the FLOPs of a prefill with and without pruning."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from divprune.cli.console import command
from divprune.cli.help import MODEL, PRUNING
from divprune.cli.shared_options import (
    AccountingName,
    AccountingOption,
    Debug,
    EncoderSpec,
    Json,
    NewlinesName,
    NewlinesOption,
    NumKeep,
    ScopeName,
    ScopeOption,
    option,
)
from divprune.cli.tables import Sheet, listing
from divprune.errors import ArgumentError

if TYPE_CHECKING:
    from divprune.efficiency import PrefillCosts

_HEADER = ("model", "method", "kept", "full TFLOP", "pruned TFLOP", "ratio %")
EXPLANATIONS = {
    AccountingOption.paper: "Multiply-accumulates of the LLM's prefill (Eq. 5), means over the paper's data sets.",
    AccountingOption.exact: (
        "All operations of a prefill, two a multiply-accumulate: encoder, selection, language model, logits."
    ),
}


def flops(
    model: Annotated[
        str | None,
        option(
            "NAME", "Such as llava-1.5-7b or qwen3-vl-8b, or a config.json. Default: the paper's four.", panel=MODEL
        ),
    ] = None,
    method: Annotated[str, option("NAME", "Which method prunes; see `divprune methods`.", panel=PRUNING)] = "divprune",
    keep_ratio: Annotated[
        float | None, option("FRACTION", "Fraction of the visual tokens kept, in (0, 1].", "the paper's", panel=PRUNING)
    ] = None,
    num_keep: NumKeep = None,
    target_percent: Annotated[
        float | None, option("P", "Find the number kept that costs P percent of the unpruned prefill.", panel=PRUNING)
    ] = None,
    layer: Annotated[int | None, option("K", "Decoder layer at whose entrance tokens go.", panel=PRUNING)] = None,
    text_tokens: Annotated[
        int | None, option("N", "Words of the prompt. Default: the paper's data sets, averaged.", min=0, panel=MODEL)
    ] = None,
    visual_tokens: Annotated[
        int | None, option("M", "Visual tokens before pruning. Default: the model's.", min=1, panel=MODEL)
    ] = None,
    scope: ScopeOption = ScopeName.item,
    newlines: NewlinesOption = NewlinesName.budget,
    encoder: EncoderSpec = None,
    image_size: Annotated[
        str | None,
        option("WIDTHxHEIGHT", "Of an image that LLaVA-NeXT cuts into tiles.", "the paper's mean image", panel=MODEL),
    ] = None,
    accounting: AccountingName = AccountingOption.paper,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Work out the prefill's FLOPs with and without pruning, from sizes alone."""
    with command(json, debug) as console:
        from divprune.efficiency import FlopsOptions, prefill_costs

        options = FlopsOptions(
            model,
            method,
            keep_ratio,
            num_keep,
            target_percent,
            layer,
            text_tokens,
            visual_tokens,
            accounting.value,
            scope.value,
            newlines.value,
            None if image_size is None else _size_of(image_size),
            encoder,
        )
        costs = prefill_costs(options)
        calibrated = costs.method.calibrated_on
        if calibrated is not None:
            name = costs.method.name
            console.note(f"{name} was calibrated on {calibrated}; sizes alone do not tell whether it fits")
        console.show(_table(costs), EXPLANATIONS[accounting])
        if costs.encoder is not None:
            console.show(
                f"encoded: visual tokens that {costs.encoder} leaves to select from, at most; full: without it."
            )
        if not costs.method.takes_budget:
            console.show(f"a layer: {costs.method.name} has a schedule of its own; tokens a layer sees, on average.")
        console.result({"rows": costs.rows})


def _size_of(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if found is None:
        raise ArgumentError(f"`image_size` must be WIDTHxHEIGHT in pixels, such as 672x672, got {text!r}")
    return int(found[1]), int(found[2])


def _table(costs: "PrefillCosts") -> Sheet:
    """With an encoder option, a column says how many tokens it leaves."""
    cells = [_cells(row) for row in costs.rows]
    if costs.encoder is None:
        return listing(_HEADER, cells)
    counts = [f"{row['num_encoded']:.0f} of {row['num_visual_tokens']:.0f}" for row in costs.rows]
    columns = [(*own[:2], count, *own[2:]) for own, count in zip(cells, counts, strict=True)]
    return listing((*_HEADER[:2], "encoded", *_HEADER[2:]), columns)


def _cells(row: dict[str, Any]) -> Sequence[str]:
    own = f"{row['tokens_per_layer']:.1f} a layer"
    kept = f"{row['keep_ratio']:g}" if row["keep_ratio"] is not None else str(row["num_keep"] or own)
    figures = (f"{row['full_tflop']:.3f}", f"{row['pruned_tflop']:.3f}", f"{row['ratio_percent']:.2f}")
    return (row["model"], row["method"], kept, *figures)
