"""`divprune bench`: measure time and memory of pruning methods next to the unpruned model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from divprune.cli.console import command
from divprune.cli.help import MODEL, OUTPUT, PRUNING, RUNNING
from divprune.cli.shared_options import (
    AllowDownload,
    ConfigFile,
    Debug,
    Device,
    Dtype,
    EncoderSpec,
    Force,
    Json,
    KeepRatio,
    ModelOption,
    NewlinesName,
    NewlinesOption,
    NumKeep,
    Page,
    PositionsOption,
    ScopeName,
    ScopeOption,
    how_to_prune,
    option,
)
from divprune.cli.tables import listing
from divprune.errors import ArgumentError
from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.records import seconds_text

MEBI = 2**20
_HEADER = ("method", "kept", "prefill", "TTFT", "tok/s", "select", "KV MiB", "peak MiB")


def bench(
    model: ModelOption = None,
    architecture: Annotated[
        str | None,
        option("NAME", "Random weights in the shape of a model, such as llava-1.5-7b, instead.", panel=MODEL),
    ] = None,
    layers: Annotated[
        int | None, option("N", "Decoder layers of the --architecture; default: all.", min=1, panel=MODEL)
    ] = None,
    text_tokens: Annotated[int, option("N", "Text tokens of the --architecture's prompt.", min=2, panel=MODEL)] = 48,
    image: Annotated[
        str | None,
        option("FILE", "The --model's image, or its data: or http(s) URL. Default: a bundled scene.", panel=MODEL),
    ] = None,
    page: Page = None,
    allow_download: AllowDownload = False,
    video: Annotated[Path | None, option("FILE", "A video instead.", panel=MODEL)] = None,
    num_frames: Annotated[int, option("N", "Frames sampled from the video.", min=1, panel=MODEL)] = 8,
    prompt: Annotated[
        str | None, option("TEXT", "What the --model is asked. Default: to describe the image.", panel=MODEL)
    ] = None,
    method: Annotated[
        list[str] | None,
        option("NAME", "A method; repeat for several. Random is always measured.", "divprune", panel=PRUNING),
    ] = None,
    keep_ratio: KeepRatio = None,
    num_keep: NumKeep = None,
    scope: ScopeOption = ScopeName.item,
    newlines: NewlinesOption = NewlinesName.budget,
    encoder: EncoderSpec = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    new_tokens: Annotated[int, option("N", "Tokens generated in each call.", min=2, panel=RUNNING)] = 32,
    repeats: Annotated[int, option("N", "Rounds, after a warm-up.", min=1, panel=RUNNING)] = 5,
    max_seconds: Annotated[
        float, option("S", "No new round starts after this; the first always does.", panel=RUNNING)
    ] = 600.0,
    memory: Annotated[
        bool, typer.Option(help="Leave out peak memory, which takes a process a method.", rich_help_panel=RUNNING)
    ] = True,
    output: Annotated[
        Path | None, option("FOLDER", "Also write a result record into this folder.", panel=OUTPUT)
    ] = None,
    device: Device = "auto",
    dtype: Annotated[
        Dtype, option("NAME", "Weights as auto (bfloat16 if random), float32, float16 or bfloat16.", panel=RUNNING)
    ] = Dtype.auto,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure time and memory of pruning methods next to the unpruned model."""
    with command(json, debug, force) as console:
        with console.working("starting"):
            from divprune.efficiency import BenchOptions, measure_methods
            from divprune.efficiency.foreign_load import busy_note
        how = how_to_prune(
            config, model, console, keep_ratio=keep_ratio, num_keep=num_keep, positions=positions, encoder=encoder
        )
        if config is not None and (method or architecture):
            raise ArgumentError("`config` says which method of which model; leave `method` and `architecture` out")
        options = BenchOptions(
            model=model,
            architecture=architecture,
            layers=layers,
            text_tokens=text_tokens,
            image=image,
            page=page,
            allow_download=allow_download,
            video=video,
            num_frames=num_frames,
            prompt=prompt,
            methods=tuple(method or (how["method"],)),
            keep_ratio=how["keep_ratio"],
            num_keep=how["num_keep"],
            positions=how["positions"],
            scope=scope.value,
            newlines=newlines.value,
            encoder=encoder,
            new_tokens=new_tokens,
            repeats=repeats,
            max_seconds=max_seconds,
            memory=memory,
            output=output,
            device=device,
            dtype=dtype.value,
        )
        found = measure_methods(options, console)
        console.show(listing(_HEADER, map(_cells, found.rows)))
        rounds = found.config["repeats"]
        console.show(f"{found.title}: medians of {rounds} runs in turns; --json has the rest, p20 and p80.")
        if encoder is not None:
            console.show(
                f"kept: of {_encoded(found.rows)} that {found.config['encoder']} leaves; unpruned is without it."
            )
        if note := busy_note(found.config):
            console.show(note)
        console.show(f"Methods: {FIDELITY_LEGEND}")
        if found.record is not None:
            console.show(f"Record: {found.record}")
        console.result({"model": found.title, "config": found.config, "rows": found.rows})


def _encoded(rows: Sequence[dict[str, Any]]) -> str:
    """Say how many visual tokens methods select from, with an encoder option; images made smaller first have others."""
    pruned = [row for row in rows if row["num_encoded"] is not None]
    return " or ".join(dict.fromkeys(f"{row['num_encoded']} of {row['num_visual_tokens']} tokens" for row in pruned))


def _cells(row: dict[str, Any]) -> Sequence[str]:
    selection, peak = row.get("selection_median_seconds"), row["peak_memory_bytes"]
    return (
        marked(row["method"], row["fidelity"]),
        "all" if row["num_kept"] is None else str(row["num_kept"]),
        seconds_text(row["prefill_median_seconds"]),
        seconds_text(row["ttft_median_seconds"]),
        f"{row['decode_median_tokens_per_second']:.2f}",
        "" if selection is None else seconds_text(selection),
        f"{row['kv_cache_bytes'] / MEBI:.1f}",
        "" if peak is None else f"{peak / MEBI:.0f}",
    )
