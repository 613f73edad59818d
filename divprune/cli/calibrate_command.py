"""`divprune calibrate`: what some methods have to know of a model. Heavy imports wait inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.cli.arguments import Debug, Dtype, Json
from divprune.cli.cost_commands import Accounting
from divprune.cli.failures import one_line_errors
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars

if TYPE_CHECKING:
    from divprune.cli.calibrate import CalibrateOptions

calibrate = typer.Typer(
    name="calibrate",
    help="Find out on a few pictures what a method has to know of a model, and write it to a file.",
    no_args_is_help=True,
)

Model = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Checkpoint directory or hub name; default: the small embedded model."),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="A picture, or a folder of pictures; repeat for more. Default: generated training scenes."
    ),
]
Prompts = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="What to ask about each picture; repeat for several.")
]
Samples = Annotated[int, typer.Option(metavar="N", min=1, help="How many generated scenes, if no pictures are given.")]
Output = Annotated[Path, typer.Option(metavar="FILE", help="Where the calibration goes, as JSON.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where it runs: auto, cpu, cuda, cuda:1, mps.")]
DtypeName = Annotated[Dtype, typer.Option(metavar="NAME", help="Weights as auto, float32, float16 or bfloat16.")]


@calibrate.command()
def vtw(
    output: Output,
    model: Model = None,
    image: Images = None,
    prompt: Prompts = None,
    samples: Samples = 20,
    threshold: Annotated[
        float, typer.Option(metavar="NATS", help="Largest mean divergence; the paper's: 0.003 for 7B, 0.0005 for 13B.")
    ] = 0.003,
    first_layer: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=1, show_default="5, or 1 for models of up to 8 layers", help="Where the search starts."
        ),
    ] = None,
    device: Device = "auto",
    dtype: DtypeName = Dtype.auto,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the layer from which on VTW can withdraw the visual tokens."""
    with _prepared(debug):
        from divprune.cli.calibrate import calibrate_layer

        options = _options(model, image, prompt, samples, output, device, dtype)
        calibrate_layer(options, threshold, first_layer, Screen(json))


@calibrate.command()
def fitprune(
    output: Output,
    target_percent: Annotated[
        float, typer.Option(metavar="P", help="What the prefill is to cost, in percent of the unpruned one.")
    ] = 40.0,
    model: Model = None,
    image: Images = None,
    prompt: Prompts = None,
    samples: Samples = 20,
    accounting: Annotated[
        Accounting, typer.Option(metavar="NAME", help="paper (its Eq. 5) or exact (every product, encoder included).")
    ] = Accounting.paper,
    device: Device = "auto",
    dtype: DtypeName = Dtype.auto,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find FitPrune's recipe: how many visual tokens go in each layer."""
    with _prepared(debug):
        from divprune.cli.calibrate import calibrate_recipe

        options = _options(model, image, prompt, samples, output, device, dtype)
        calibrate_recipe(options, target_percent, accounting.value, Screen(json))


@contextmanager
def _prepared(debug: bool) -> Iterator[None]:
    with one_line_errors(debug), quiet_logs(debug), quiet_progress_bars(debug):
        yield


def _options(
    model: str | None,
    images: list[Path] | None,
    prompts: list[str] | None,
    samples: int,
    output: Path,
    device: str,
    dtype: Dtype,
) -> "CalibrateOptions":
    from divprune.cli.calibrate import CalibrateOptions

    return CalibrateOptions(model, tuple(images or ()), tuple(prompts or ()), samples, output, device, dtype.value)
