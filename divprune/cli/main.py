"""The entry point. Heavy imports wait inside the commands, so that `divprune --help` answers at once."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import divprune
from divprune.cli.batch import batch
from divprune.cli.bench import bench
from divprune.cli.calibration import calibrate
from divprune.cli.eval import evaluate
from divprune.cli.figures import figures
from divprune.cli.flops import flops
from divprune.cli.methods import families, methods
from divprune.cli.reproduce import reproduce
from divprune.cli.run import run
from divprune.cli.serve import serve
from divprune.cli.tune import tune_model
from divprune.errors import printable


class _Group(TyperGroup):
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


app.command()(run)
app.command()(methods)
app.command()(families)
app.command()(flops)
app.command()(bench)
app.add_typer(calibrate)
app.command("eval")(evaluate)
app.command()(reproduce)
app.command()(figures)
app.command()(serve)
app.command()(batch)
app.command("tune")(tune_model)
