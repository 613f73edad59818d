"""`divprune flops` and `divprune bench`: what pruning costs and saves. Heavy imports wait inside."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.arguments import Debug, Dtype, Json
from divprune.cli.failures import one_line_errors
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars


class Accounting(StrEnum):
    """The ways of counting that `--accounting` takes."""

    paper = "paper"
    exact = "exact"


def flops(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A model of the paper, such as llava-1.5-7b, or a config.json. Default: all."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Which method prunes; see `divprune methods`.")
    ] = "divprune",
    keep_ratio: Annotated[
        float | None,
        typer.Option(metavar="SHARE", show_default="the paper's", help="Share of the visual tokens kept, in (0, 1]."),
    ] = None,
    num_keep: Annotated[int | None, typer.Option(metavar="N", help="Visual tokens kept, instead of a share.")] = None,
    target_percent: Annotated[
        float | None,
        typer.Option(metavar="P", help="Find the number kept that costs P percent of the unpruned prefill."),
    ] = None,
    layer: Annotated[int | None, typer.Option(metavar="K", help="Decoder layer at whose entrance tokens go.")] = None,
    text_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Words of the prompt. Default: the paper's data sets, averaged."),
    ] = None,
    visual_tokens: Annotated[
        int | None, typer.Option(metavar="M", min=1, help="Visual tokens before pruning. Default: the model's.")
    ] = None,
    accounting: Annotated[
        Accounting, typer.Option(metavar="NAME", help="paper (its Eq. 5) or exact (every product, encoder included).")
    ] = Accounting.paper,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Work out the prefill's FLOPs with and without pruning, from sizes alone."""
    with one_line_errors(debug), quiet_logs(debug):
        from divprune.cli.flops import FlopsOptions, show_flops

        options = FlopsOptions(
            model=model,
            method=method,
            keep_ratio=keep_ratio,
            num_keep=num_keep,
            target_percent=target_percent,
            layer=layer,
            text_tokens=text_tokens,
            visual_tokens=visual_tokens,
            accounting=accounting.value,
        )
        show_flops(options, Screen(json))


def bench(
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Checkpoint directory or hub name; default: the small embedded model."),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Random weights in the shape of a model, such as llava-1.5-7b, instead."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Decoder layers of the --architecture; default: all.")
    ] = None,
    text_tokens: Annotated[
        int, typer.Option(metavar="N", min=2, help="Text tokens of the --architecture's prompt.")
    ] = 48,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The --model's picture. Default: a bundled scene.")
    ] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="A clip instead.")] = None,
    num_frames: Annotated[int, typer.Option(metavar="N", min=1, help="Frames sampled from the clip.")] = 8,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the --model is asked.")] = "Describe the picture.",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default="divprune", help="A method; repeat for several. Random is always measured."
        ),
    ] = None,
    keep_ratio: Annotated[
        float | None,
        typer.Option(metavar="SHARE", show_default="0.098", help="Share of the visual tokens kept, in (0, 1]."),
    ] = None,
    num_keep: Annotated[int | None, typer.Option(metavar="N", help="Visual tokens kept, instead of a share.")] = None,
    new_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Tokens generated in each call.")] = 32,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Rounds, after a warm-up.")] = 5,
    max_seconds: Annotated[
        float, typer.Option(metavar="S", help="No new round starts after this; the first always does.")
    ] = 600.0,
    memory: Annotated[bool, typer.Option(help="Also measure peak memory, a process a method.")] = True,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write a result record into this folder.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where it runs: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(metavar="NAME", help="Weights as auto (bfloat16 if random), float32, float16 or bfloat16.")
    ] = Dtype.auto,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure time and memory of pruning methods next to the unpruned model."""
    with one_line_errors(debug), quiet_logs(debug):
        screen = Screen(json)
        with screen.working("starting"):
            from divprune.cli.bench import bench as measure_and_show
            from divprune.cli.bench_subject import BenchOptions
        options = BenchOptions(
            model=model,
            architecture=architecture,
            layers=layers,
            text_tokens=text_tokens,
            image=image,
            video=video,
            num_frames=num_frames,
            prompt=prompt,
            methods=tuple(method or ("divprune",)),
            keep_ratio=keep_ratio,
            num_keep=num_keep,
            new_tokens=new_tokens,
            repeats=repeats,
            max_seconds=max_seconds,
            memory=memory,
            output=output,
            device=device,
            dtype=dtype.value,
        )
        with quiet_progress_bars(debug):
            measure_and_show(options, screen)
