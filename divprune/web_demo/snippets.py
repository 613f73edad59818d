"""Write a setting of the demo as Python and as a server command: to be copied, and keeping the same tokens."""

import shlex
from dataclasses import dataclass
from typing import Any

from divprune.checkpoints import EMBEDDED
from divprune.embedded import EMBEDDED_FOLDERS, checkpoint_path
from divprune.errors import UnsupportedModelError, argument_errors
from divprune.media import Medium
from divprune.methods import get_method
from divprune.methods.item_context import Modality
from divprune.vllm_plugin.families import served_family
from divprune.vllm_plugin.refusals import refuse_method, refuse_tower
from divprune.web_demo.options import ModelOptions

_PYTHON = """\
{imports}
from divprune import prune
from divprune.checkpoints import choose_device, load_model
from divprune.prompting import build_inputs, decode_answer

loaded = load_model({model!r}, choose_device({device!r}), {dtype!r})
inputs = build_inputs(loaded, [{medium}], {prompt!r})
with prune(loaded.model, {method!r}, keep_ratio={keep_ratio!r}) as pruning:
    sequences = loaded.model.generate(**inputs, max_new_tokens={max_new_tokens}, do_sample=False, num_beams=1)
print(decode_answer(loaded, inputs, sequences))
print(pruning.last)
print(pruning.last.items[0].kept_indices.tolist())
"""


@dataclass(frozen=True)
class MediumSource:
    """How Python gets an image or video: an expression, and the import lines that it needs."""

    expression: str
    imports: str


def of_scene(seed: int) -> MediumSource:
    """Return how Python gets a bundled scene."""
    expression = f'Medium("scene {seed}", "image", (scene({seed}, "test").image,))'
    return MediumSource(expression, "from divprune.embedded import scene\nfrom divprune.media import Medium")


def of_file(medium: Medium, num_frames: int) -> MediumSource:
    """Return how Python gets a file, by its name without folders."""
    if medium.kind == "image":
        return MediumSource(f"load_image({medium.name!r})", "from divprune.media import load_image")
    expression = f"load_video(Path({medium.name!r}), {num_frames})"
    return MediumSource(expression, "from pathlib import Path\n\nfrom divprune.media import load_video")


def python_code(options: ModelOptions, source: MediumSource, prompt: str, method: str, keep_ratio: float) -> str:
    """Return a whole program that answers a question from the same tokens.

    Args:
        options: of the demo.
        source: of the image or video.
        prompt: the question.
        method: as `get_method` reads it.
        keep_ratio: fraction of the visual tokens kept.
    """
    return _PYTHON.format(
        imports=source.imports,
        medium=source.expression,
        model=options.model or EMBEDDED,
        device=options.device,
        dtype=options.dtype,
        prompt=prompt,
        method=method,
        keep_ratio=keep_ratio,
        max_new_tokens=options.max_new_tokens,
    )


def server_command(options: ModelOptions, config: Any, kind: Modality, method: str, keep_ratio: float) -> str:
    """Return the command that serves the model with this pruning.

    Args:
        options: of the demo.
        config: the model's configuration.
        kind: "image" or "video", which is asked about.
        method: as `get_method` reads it.
        keep_ratio: fraction of the visual tokens kept.

    Raises:
        DivpruneError: the model, or the method on it, cannot be served; says why.
    """
    name = options.model or EMBEDDED
    family = next(filter(None, map(served_family, config.architectures or ())), None)
    if family is None or kind not in family.modalities:
        raise UnsupportedModelError(f"{name} is not served pruned with {kind}s; `divprune families` lists what is")
    with argument_errors():
        refuse_method(get_method(method), family, (kind,))
        refuse_tower(get_method(method), family, config)
    model = str(checkpoint_path(name)) if name in EMBEDDED_FOLDERS else name
    return shlex.join(["divprune", "serve", model, "--method", method, "--keep-ratio", repr(keep_ratio)])
