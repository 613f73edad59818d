"""The embedded models: small LLaVAs trained on generated scenes and videos, and these with their questions.

`checkpoint_path()` is a folder that `AutoProcessor` and `AutoModelForImageTextToText` load like any checkpoint. Nothing
here imports torch or transformers. `tools/embedded` trains and measures them.
"""

from importlib import resources
from math import prod
from pathlib import Path

from safetensors import safe_open

from divprune.embedded.questions import Question, questions
from divprune.embedded.scenes import Scene, SceneObject, scene
from divprune.embedded.templates import KINDS, VIDEO_KINDS
from divprune.embedded.video_questions import video_questions
from divprune.embedded.videos import Video, generated_video

__all__ = [
    "EMBEDDED_FOLDERS",
    "EXAMPLE_SEEDS",
    "KINDS",
    "VIDEO_KINDS",
    "Question",
    "Scene",
    "SceneObject",
    "Video",
    "checkpoint_path",
    "generated_video",
    "num_parameters",
    "questions",
    "scene",
    "video_questions",
]

EMBEDDED_FOLDERS = {"embedded": "checkpoint", "embedded-video": "video_checkpoint"}
"""The folders of the embedded models, by the models' names."""

EXAMPLE_SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
"""Test scenes for demonstrations: `scene(seed, "test")`."""


def checkpoint_path(name: str = "embedded") -> Path:
    """Return the folder of an embedded model: weights, configuration, processor and model card.

    Args:
        name: one of EMBEDDED_FOLDERS; "embedded" reads images, "embedded-video" videos of 8 frames and images.

    Raises:
        FileNotFoundError: if the installation lacks the weights.
    """
    folder = Path(str(resources.files("divprune.embedded") / EMBEDDED_FOLDERS[name]))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no embedded model in {folder}; reinstall divprune or run tools.embedded.train")
    return folder


def num_parameters(name: str = "embedded") -> int:
    """Count the parameters of an embedded model, as its weights say; they are not loaded."""
    with safe_open(checkpoint_path(name) / "model.safetensors", framework="np") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
