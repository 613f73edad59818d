"""Calibrate VTW or FitPrune on examples, and write what was found to a file: what `divprune calibrate` does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divprune.calibration.fitprune import FitPruneCalibration, calibrate_fitprune
from divprune.calibration.vtw import VTWCalibration, calibrate_vtw
from divprune.checkpoints import (
    EMBEDDED,
    LoadedModel,
    checkpoint_config,
    choose_device,
    load_model,
)
from divprune.config import PruningConfig
from divprune.efficiency.flops import Accounting
from divprune.embedded.examples import DEFAULT_PROMPT, Example, image_files, training_scenes
from divprune.errors import ArgumentError, argument_errors
from divprune.huggingface.adapter import ModelAdapter
from divprune.huggingface.fitting import require_prunable
from divprune.media import is_url, load_image
from divprune.methods import VTW
from divprune.outputs import files_of, safe_output
from divprune.progress import SILENT, Progress
from divprune.prompting import build_inputs
from divprune.records import calibration_file

MOST_SCENES = 10_000
FIRST_LAYER = 5
"""Where the paper starts VTW's search, in models of 32 layers."""
FEW_LAYERS = 8


@dataclass(frozen=True)
class CalibrationOptions:
    """What every calibration needs to know.

    Attributes:
        output: the JSON file that gets it.
        model: checkpoint directory or hub name; None for the embedded model.
        images: image files, folders of them, and URLs; none for generated training scenes.
        prompts: each asked about each image; none for a default one.
        num_scenes: how many generated scenes, if there are no images.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16".
        allow_download: whether http(s) URLs among the images are fetched.
    """

    output: Path
    model: str | None = None
    images: tuple[Path | str, ...] = ()
    prompts: tuple[str, ...] = ()
    num_scenes: int = 20
    device: str = "auto"
    dtype: str = "auto"
    allow_download: bool = False

    @property
    def image_sources(self) -> Iterable[Path | str]:
        """Every image file, folders opened, and every URL."""
        return (found for each in self.images for found in ([each] if is_url(each) else image_files(Path(each))))


def find_vtw_layer(
    options: CalibrationOptions,
    threshold: float = 0.003,
    first_layer: int | None = None,
    progress: Progress = SILENT,
    *,
    show_download: bool = False,
) -> tuple[VTWCalibration, str]:
    """Find the layer from which on VTW can withdraw the visual tokens, and save it.

    Args:
        options: the model and its examples.
        threshold: largest mean divergence, in nats; the paper's: 0.003 for 7B, 0.0005 for 13B.
        first_layer: where the search starts; None for 5, or 1 in models of up to 8 layers.
        progress: is told how far it is.
        show_download: whether the hub may draw its progress bars.

    Returns:
        What was found, and the name of the calibrated model.

    Raises:
        ArgumentError: an argument cannot work.
        CalibrationError: no layer meets the threshold.
    """
    loaded, samples = _prepared(options, "VTW", first_layer or 1, progress, show_download)
    layers = ModelAdapter.of(loaded.model).num_layers
    first = first_layer or (FIRST_LAYER if layers > FEW_LAYERS else 1)
    num_calls = len(samples) * (1 + layers - first)
    with argument_errors(), progress.counting("calibrating", num_calls) as advance:
        found = calibrate_vtw(
            loaded.model, samples, threshold=threshold, first_layer=first, after_call=lambda: advance(1)
        )
    found.save(options.output)
    return found, loaded.name


def find_fitprune_recipe(
    options: CalibrationOptions,
    target_percent: float = 40.0,
    accounting: Accounting = "paper",
    progress: Progress = SILENT,
    *,
    show_download: bool = False,
) -> tuple[FitPruneCalibration, str]:
    """Find how many visual tokens FitPrune drops in each layer, and save the recipe.

    Args:
        options: the model and its examples.
        target_percent: what the prefill is to cost, in percent of the unpruned one.
        accounting: "paper" (its Eq. 5) or "exact" (every product, encoder included).
        progress: is told how far it is.
        show_download: whether the hub may draw its progress bars.

    Returns:
        What was found, and the name of the calibrated model.

    Raises:
        ArgumentError: an argument cannot work.
        CalibrationError: no recipe costs so little.
    """
    if not 0 < target_percent < 100:
        raise ArgumentError(f"`target_percent` must be in (0, 100), got {target_percent:g}")
    loaded, samples = _prepared(options, "FitPrune", 1, progress, show_download)
    with argument_errors(), progress.counting("calibrating", len(samples)) as advance:
        found = calibrate_fitprune(
            loaded.model,
            samples,
            flop_ratio=target_percent / 100,
            accounting=accounting,
            after_call=lambda: advance(1),
        )
    found.save(options.output)
    return found, loaded.name


def _prepared(
    options: CalibrationOptions, method: str, first_layer: int, progress: Progress, show_download: bool
) -> tuple[LoadedModel, list[dict[str, Any]]]:
    images = [Path(each) for each in options.image_sources if not is_url(each)]
    safe_output("output", options.output, calibration_file(method), (*images, *files_of(options.model)))
    examples = _examples(options, progress)
    model_config = checkpoint_config(options.model)
    require_prunable(model_config, (PruningConfig(VTW(layer=1)),), {"image"})
    last_layer = model_config.get_text_config().num_hidden_layers - 1
    if not 1 <= first_layer <= last_layer:
        raise ArgumentError(f"first_layer must be between 1 and {last_layer} for this model, got {first_layer}")
    device = choose_device(options.device)
    with progress.working("loading the model"):
        loaded = load_model(options.model, device, options.dtype, show_download=show_download)
    return loaded, [build_inputs(loaded, example.media, example.prompt) for example in examples]


def _examples(options: CalibrationOptions, progress: Progress) -> Sequence[Example]:
    if options.images:
        prompts = options.prompts or (DEFAULT_PROMPT,)
        images = [load_image(each, allow_download=options.allow_download) for each in options.image_sources]
        for image in images:
            image.tell(progress)
        return [Example((image,), prompt) for image in images for prompt in prompts]
    if options.model not in (None, EMBEDDED):
        raise ArgumentError("`images` is needed with `model`: generated scenes are for the embedded model only")
    if options.num_scenes > MOST_SCENES:
        raise ArgumentError(f"`num_scenes` must be at most {MOST_SCENES}, which are held in memory")
    return training_scenes(options.num_scenes, options.prompts)
