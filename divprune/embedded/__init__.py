"""The embedded model: a small LLaVA trained from nothing on generated scenes, and those scenes with their questions.

`checkpoint_path()` is a folder that `AutoProcessor` and `AutoModelForImageTextToText` load like any checkpoint. Nothing
here imports torch or transformers. `tools/embedded` trains it and measures it.
"""

from importlib import resources
from math import prod
from pathlib import Path

from safetensors import safe_open

from divprune.embedded.questions import Question, questions
from divprune.embedded.scenes import Scene, SceneObject, scene
from divprune.embedded.templates import KINDS

__all__ = [
    "EXAMPLE_SEEDS",
    "KINDS",
    "Question",
    "Scene",
    "SceneObject",
    "checkpoint_path",
    "num_parameters",
    "questions",
    "scene",
]

EXAMPLE_SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
"""Test scenes for demonstrations: `scene(seed, "test")`."""


def checkpoint_path() -> Path:
    """Return the folder of the bundled model: weights, configuration, processor and model card.

    Raises:
        FileNotFoundError: if the installation lacks the weights.
    """
    folder = Path(str(resources.files("divprune.embedded") / "checkpoint"))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no embedded model in {folder}; reinstall divprune or run tools.embedded.train")
    return folder


def num_parameters() -> int:
    """Count the parameters of the bundled model, as its weights say; they are not loaded."""
    with safe_open(checkpoint_path() / "model.safetensors", framework="np") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
