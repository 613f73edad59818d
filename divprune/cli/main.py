"""The entry point. Heavy imports wait inside the commands, so that `divprune --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

import divprune
from divprune.cli.arguments import Debug, Dtype, Json
from divprune.cli.calibrate_command import calibrate
from divprune.cli.cost_commands import bench, flops
from divprune.cli.eval_command import evaluate
from divprune.cli.failures import one_line_errors
from divprune.cli.figures_command import figures
from divprune.cli.reproduce_command import reproduce
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars
from divprune.cli.serve_commands import batch, serve

app = typer.Typer(
    name="divprune",
    help="Ask multimodal models from a tenth of their visual tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"divprune {divprune.__version__}")
        raise typer.Exit


@app.callback()
def _divprune(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Checkpoint directory or hub name; default: the small embedded model."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A picture; repeat for several in one prompt. Default: bundled scenes."),
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A clip; repeat for several in one prompt.")
    ] = None,
    num_frames: Annotated[int, typer.Option(metavar="N", min=1, help="Frames sampled from each clip.")] = 8,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to ask; repeat for several questions, each asked by itself."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Which tokens to keep; see `divprune methods`.")
    ] = "divprune",
    keep_ratio: Annotated[
        float | None,
        typer.Option(metavar="SHARE", show_default="0.098", help="Share of the visual tokens kept, in (0, 1]."),
    ] = None,
    num_keep: Annotated[
        int | None, typer.Option(metavar="N", help="Visual tokens kept of each picture or clip, instead of a share.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Also answer from all visual tokens.")] = True,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML report, pictures included, to this file.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")] = 64,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timed runs of each prompt, after a warm-up.")] = 5,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where it runs: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(metavar="NAME", help="Weights as auto, float32, float16 or bfloat16.")
    ] = Dtype.auto,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask about pictures twice: with all visual tokens, and with few of them."""
    with one_line_errors(debug):
        from divprune.cli.options import RunOptions, check_options, read_asks

        screen = Screen(json)
        options = RunOptions(
            model=model,
            images=tuple(image or ()),
            videos=tuple(video or ()),
            num_frames=num_frames,
            prompts=tuple(prompt or ()),
            method=method,
            keep_ratio=keep_ratio,
            num_keep=num_keep,
            compare=compare,
            report=report,
            max_new_tokens=max_new_tokens,
            repeats=repeats,
            device=device,
            dtype=dtype.value,
        )
        check_options(options)
        with quiet_logs(debug):
            with screen.working("reading pictures and clips"):
                asks = read_asks(options)
            with screen.working("starting"):
                from divprune.cli.run import run as answer_and_show
            with quiet_progress_bars(debug):
                answer_and_show(options, asks, screen)


@app.command()
def methods(json: Json = False, debug: Debug = False) -> None:
    """List the pruning methods, built in and installed."""
    with one_line_errors(debug), quiet_logs(debug):
        from divprune.cli.listings import show_methods

        show_methods(Screen(json))


@app.command()
def families(
    refused: Annotated[bool, typer.Option("--refused", help="Also list what cannot be pruned, and why.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the model families that can be pruned, and which ways of calling them."""
    with one_line_errors(debug), quiet_logs(debug):
        from divprune.cli.listings import show_families

        show_families(Screen(json), refused)


app.command()(flops)
app.command()(bench)
app.add_typer(calibrate)
app.command("eval")(evaluate)
app.command()(reproduce)
app.command()(figures)
app.command()(serve)
app.command()(batch)
