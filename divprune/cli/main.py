"""The entry point. Heavy imports wait inside the commands, so that `divprune --help` answers at once."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

import divprune
from divprune.cli.batch import batch
from divprune.cli.bench import bench
from divprune.cli.calibration import calibrate
from divprune.cli.demo import demo
from divprune.cli.eval import evaluate
from divprune.cli.families import families
from divprune.cli.figures import figures
from divprune.cli.flops import flops
from divprune.cli.help import Command, CommandGroup, examples
from divprune.cli.methods import methods
from divprune.cli.reproduce import reproduce
from divprune.cli.run import run
from divprune.cli.serve import serve
from divprune.cli.tune import tune_model
from divprune.errors import printable


class _Group(CommandGroup):
    """Lets no argument control the terminal by way of the message that refuses it."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(getattr(error, "message", None), str):
                error.message = printable(error.message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    name="divprune",
    cls=_Group,
    help="Ask multimodal models from a tenth of their visual tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"divprune {divprune.__version__}")
        raise typer.Exit


@app.callback()
def _divprune(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand not in ("serve", "batch"):
        # Before torch is loaded: threads that wait for work then sleep. Spinning, each call takes many times as long
        # beside anything else that runs. How servers fare with it is not measured.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_TRY, _SERVE, _MEASURE = "Try and look up", "Tune and serve", "Measure and reproduce"
_COMMANDS: tuple[tuple[str, str, Callable[..., None], tuple[str, ...]], ...] = (
    (
        _TRY, "run", run,
        (
            "divprune run --report report.html",
            "divprune run --model llava-hf/llava-1.5-7b-hf --image photo.jpg",
        ),
    ),
    (_TRY, "demo", demo, ("divprune demo --model llava-hf/llava-1.5-7b-hf", "divprune demo --export gallery")),
    (_TRY, "methods", methods, ("divprune methods divprune", "divprune methods | cut -f 1,4")),
    (_TRY, "families", families, ("divprune families qwen",)),
    (_TRY, "flops", flops, ("divprune flops --model llava-1.5-7b --keep-ratio 0.2",)),
    (_SERVE, "tune", tune_model, ("divprune tune llava-hf/llava-1.5-7b-hf --input photographs",)),
    (_SERVE, "serve", serve, ("divprune serve llava-hf/llava-1.5-7b-hf --keep-ratio 0.2 -- --port 8001",)),
    (_SERVE, "batch", batch, ("divprune batch llava-hf/llava-1.5-7b-hf --input photographs --output answers.jsonl",)),
    (_MEASURE, "bench", bench, ("divprune bench --architecture llava-1.5-7b --layers 4 --method fastv",)),
    (_MEASURE, "eval", evaluate, ("divprune eval --suite scenes --methods 'divprune random' --limit 64",)),
    (_MEASURE, "reproduce", reproduce, ("divprune reproduce table1 --dry-run",)),
    (_MEASURE, "figures", figures, ("divprune figures --only prefill --output .",)),
)  # fmt: skip
for _panel, _name, _function, _lines in _COMMANDS:
    app.command(_name, cls=Command, epilog=examples(*_lines), rich_help_panel=_panel)(_function)
app.add_typer(calibrate, rich_help_panel=_MEASURE)
