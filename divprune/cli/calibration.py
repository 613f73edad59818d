"""`divprune calibrate`: find what some methods have to know of a model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.cli.console import command
from divprune.cli.help import Command, CommandGroup, examples
from divprune.cli.shared_options import (
    AccountingName,
    AccountingOption,
    AllowDownload,
    Debug,
    Device,
    Dtype,
    Force,
    Json,
    ModelOption,
    WeightsDtype,
    option,
)
from divprune.cli.tables import listing

if TYPE_CHECKING:
    from divprune.calibration import CalibrationOptions

calibrate = typer.Typer(
    name="calibrate",
    cls=CommandGroup,
    help="Find out on a few images what a method has to know of a model, and write it to a file.",
    no_args_is_help=True,
)

Images = Annotated[
    list[str] | None,
    option("PATH", "An image, a folder of images, or a data: or http(s) URL; repeat. Default: training scenes."),
]
Prompts = Annotated[list[str] | None, option("TEXT", "What to ask about each image; repeat for several.")]
Samples = Annotated[int, option("N", "How many generated scenes, if no images are given.", min=1)]
Output = Annotated[Path, option("FILE", "Where the calibration goes, as JSON.")]


@calibrate.command(
    cls=Command, epilog=examples("divprune calibrate vtw --model llava-hf/llava-1.5-7b-hf --output vtw.json")
)
def vtw(
    output: Output,
    model: ModelOption = None,
    image: Images = None,
    allow_download: AllowDownload = False,
    prompt: Prompts = None,
    samples: Samples = 20,
    threshold: Annotated[
        float, option("NATS", "Largest mean divergence; the paper's: 0.003 for 7B, 0.0005 for 13B.")
    ] = 0.003,
    first_layer: Annotated[
        int | None, option("K", "Where the search starts.", "5, or 1 for models of up to 8 layers", min=1)
    ] = None,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the layer from which on VTW can withdraw the visual tokens."""
    with command(json, debug, force) as console:
        from divprune.calibration import find_vtw_layer

        options = _options(model, image, prompt, samples, output, device, dtype, allow_download)
        found, name = find_vtw_layer(options, threshold, first_layer, console, show_download=console.is_terminal)
        rows = [(str(layer), f"{divergence:.4g}") for layer, divergence in found.divergences.items()]
        method = f"vtw:layer={found.layer}"
        console.show(listing(("layer", "mean divergence, nats"), rows), _advice(output, method))
        console.result({"model": name, "method": method, "output": str(output), "calibration": asdict(found)})


@calibrate.command(cls=Command, epilog=examples("divprune calibrate fitprune --target-percent 40 --output recipe.json"))
def fitprune(
    output: Output,
    target_percent: Annotated[
        float, option("P", "What the prefill is to cost, in percent of the unpruned one.")
    ] = 40.0,
    model: ModelOption = None,
    image: Images = None,
    allow_download: AllowDownload = False,
    prompt: Prompts = None,
    samples: Samples = 20,
    accounting: AccountingName = AccountingOption.paper,
    device: Device = "auto",
    dtype: WeightsDtype = Dtype.auto,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find FitPrune's recipe: how many visual tokens go in each layer."""
    with command(json, debug, force) as console:
        from divprune.calibration import find_fitprune_recipe

        options = _options(model, image, prompt, samples, output, device, dtype, allow_download)
        found, name = find_fitprune_recipe(
            options, target_percent, accounting.value, console, show_download=console.is_terminal
        )
        recipe, method = found.recipe, f"fitprune:recipe={output}"
        left = recipe.num_left(recipe.num_visual_tokens)
        rows = [(str(layer + 1), str(recipe.drops[layer]), str(count)) for layer, count in left.items()]
        console.show(listing(("entering layer", "dropped", f"left of {recipe.num_visual_tokens}"), rows))
        cost = f"The prefill costs {found.flop_ratio:.2%} of the unpruned one; {target_percent:g} % was asked for."
        console.show(cost, _advice(output, method))
        console.result({"model": name, "method": method, "output": str(output), "calibration": asdict(found)})


def _advice(output: Path, method: str) -> str:
    return f"Saved: {output}. Use it by --method {method}"


def _options(
    model: str | None,
    images: list[str] | None,
    prompts: list[str] | None,
    samples: int,
    output: Path,
    device: str,
    dtype: Dtype,
    allow_download: bool,
) -> "CalibrationOptions":
    from divprune.calibration import CalibrationOptions

    return CalibrationOptions(
        output, model, tuple(images or ()), tuple(prompts or ()), samples, device, dtype.value, allow_download
    )
