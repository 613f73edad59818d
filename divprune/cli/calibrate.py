"""What `divprune calibrate` does: load the model, run the samples, write the file, say how to use it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from divprune.calibration import VTWCalibration, calibrate_fitprune, calibrate_vtw
from divprune.checkpoints import EMBEDDED, LoadedModel, choose_device, load_model
from divprune.cli.examples import Ask, training_scenes
from divprune.cli.failures import CommandError
from divprune.cli.options import DEFAULT_PROMPT
from divprune.cli.outputs import check_not_read, check_output_file, check_replaceable, is_calibration
from divprune.cli.screen import Screen, advance
from divprune.cli.tables import listing
from divprune.efficiency.flops import Accounting
from divprune.errors import DivpruneError
from divprune.huggingface.adapter import ModelAdapter
from divprune.media import load_picture
from divprune.prompting import build_inputs

Calibration = TypeVar("Calibration")

FIRST_LAYER = 5
"""Where the paper starts VTW's search, in models of 32 layers."""
FEW_LAYERS = 8


@dataclass(frozen=True)
class CalibrateOptions:
    """The arguments that all calibrations take, as typed."""

    model: str | None
    images: tuple[Path, ...]
    prompts: tuple[str, ...]
    num_scenes: int
    output: Path
    device: str
    dtype: str


def calibrate_layer(options: CalibrateOptions, threshold: float, first_layer: int | None, screen: Screen) -> None:
    """Find VTW's layer.

    Raises:
        CommandError: an option cannot work.
        CalibrationError: no layer meets the threshold.
    """
    loaded, samples = _prepared(options, "VTW", screen)
    layers = ModelAdapter.of(loaded.model).num_layers
    first = first_layer or (FIRST_LAYER if layers > FEW_LAYERS else 1)

    def search(after_call: Callable[[], None]) -> VTWCalibration:
        return calibrate_vtw(loaded.model, samples, threshold=threshold, first_layer=first, after_call=after_call)

    found = _counted(search, len(samples) * (1 + layers - first), screen)
    found.save(options.output)
    rows = [(str(layer), f"{divergence:.4g}") for layer, divergence in found.divergences.items()]
    screen.show(listing(("layer", "mean divergence, nats"), rows))
    _finish(options, loaded, f"vtw:layer={found.layer}", asdict(found), screen)


def calibrate_recipe(options: CalibrateOptions, target_percent: float, accounting: Accounting, screen: Screen) -> None:
    """Find FitPrune's recipe.

    Raises:
        CommandError: an option cannot work.
        CalibrationError: no recipe costs so little.
    """
    if not 0 < target_percent < 100:
        raise CommandError(f"--target-percent must be in (0, 100), got {target_percent:g}")
    loaded, samples = _prepared(options, "FitPrune", screen)
    found = _counted(
        lambda after_call: calibrate_fitprune(
            loaded.model, samples, flop_ratio=target_percent / 100, accounting=accounting, after_call=after_call
        ),
        len(samples),
        screen,
    )
    found.save(options.output)
    left = found.recipe.num_left(found.recipe.num_visual_tokens)
    rows = [(str(layer + 1), str(found.recipe.drops[layer]), str(count)) for layer, count in left.items()]
    screen.show(listing(("entering layer", "dropped", f"left of {found.recipe.num_visual_tokens}"), rows))
    screen.show(f"The prefill costs {found.flop_ratio:.2%} of the unpruned one; {target_percent:g} % was asked for.")
    _finish(options, loaded, f"fitprune:recipe={options.output}", asdict(found), screen)


def _prepared(options: CalibrateOptions, method: str, screen: Screen) -> tuple[LoadedModel, list[dict[str, Any]]]:
    _check_output(options, method)
    asks = _asks(options)
    device = choose_device(options.device)
    with screen.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=screen.is_terminal)
    return loaded, [build_inputs(loaded, ask.media, ask.prompt) for ask in asks]


def _check_output(options: CalibrateOptions, method: str) -> None:
    images = (path for each in options.images for path in picture_files(each))
    check_output_file("--output", options.output, "calibration.json")
    check_not_read("--output", options.output, images, "calibration.json")
    is_ours = partial(is_calibration, method=method)
    check_replaceable("--output", options.output, is_ours, f"{method} calibration")


def _asks(options: CalibrateOptions) -> Sequence[Ask]:
    if options.images:
        pictures = [load_picture(path) for each in options.images for path in picture_files(each)]
        return [Ask((picture,), prompt) for picture in pictures for prompt in options.prompts or (DEFAULT_PROMPT,)]
    if options.model not in (None, EMBEDDED):
        raise CommandError("--image is needed with --model: generated scenes are for the embedded model only")
    return training_scenes(options.num_scenes, options.prompts)


def picture_files(path: Path) -> list[Path]:
    """A picture, or those in a folder."""
    if not path.is_dir():
        return [path]
    from PIL import Image

    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes)
    if not found:
        raise CommandError(f"--image {path}: there are no pictures in this folder")
    return found


def _counted(search: Callable[[Callable[[], None]], Calibration], num_calls: int, screen: Screen) -> Calibration:
    """Run a search under a progress bar."""
    try:
        with screen.counting("calibrating", num_calls) as bar:
            return search(lambda: advance(bar))
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


def _finish(
    options: CalibrateOptions, loaded: LoadedModel, method: str, fields: dict[str, Any], screen: Screen
) -> None:
    screen.show(f"Saved: {options.output}. Use it by --method {method}")
    screen.result({"model": loaded.name, "method": method, "output": str(options.output), "calibration": fields})
