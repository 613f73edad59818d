"""Check a checkpoint's files before transformers reads them: weights in safetensors of this folder, sizes, template.

A checkpoint comes from anywhere. transformers runs none of its code; these are the ways that are left to load other
files than it says, to fill the memory, or never to end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from divprune.errors import CheckpointError, first_line

LAYER_NAMES = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth", "encoder_layers", "decoder_layers")
MOST_LAYERS = 1000
"""More than any model has; a config that claims more would take hours to be built."""
TEMPLATE_SECONDS = 10
TEMPLATE_BYTES = 2**30
_INDEX = "*.safetensors.index.json"


def check_folder(name: str, folder: Path) -> None:
    """Refuse a checkpoint that names weights which are no safetensors files of its folder, or no sizes of a model.

    Args:
        name: what the user called it.
        folder: with a config.json.

    Raises:
        CheckpointError: says which file is at fault.
    """
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{name} is an adapter (adapter_config.json): merge it into its base model (peft's `merge_and_unload`), "
            "save that, and give its directory"
        )
    for index in folder.glob(_INDEX):
        weight_map = read_json(name, index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"cannot load {name}: {index.name} must map weights to files")
        for file in set(map(str, weight_map.values())):
            is_inside = file == PurePosixPath(file).name == PureWindowsPath(file).name
            if not (is_inside and file.endswith(".safetensors")):
                raise CheckpointError(
                    f"cannot load {name}: {index.name} names {file[:80]!r}, which is no safetensors file of the folder"
                )
    config = read_json(name, folder / "config.json")
    check_format(name, config)
    if list(folder.glob("*.bin")) and not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"cannot load {name}: its weights are .bin files, which may run code; take a revision with safetensors, or "
            "load and save it once by transformers where you trust it"
        )
    for key, count in _layer_counts(config):
        if not 1 <= count <= MOST_LAYERS:
            raise CheckpointError(
                f"cannot load {name}: `{key}` of config.json must be between 1 and {MOST_LAYERS}, got {count}"
            )


def check_format(name: str, config: dict[str, Any]) -> None:
    """Refuse a checkpoint of another format than transformers', with the way to one that is.

    Raises:
        CheckpointError: it is in LLaVA's original format, or brings code of its own.
    """
    from transformers import CONFIG_MAPPING

    model_type = str(config.get("model_type"))
    if model_type in CONFIG_MAPPING:
        return
    if model_type.startswith("llava_"):
        raise CheckpointError(
            f"{name} is in LLaVA's original format ({model_type}); take the one converted for transformers, such as "
            "llava-hf/llava-1.5-7b-hf for liuhaotian/llava-v1.5-7b"
        )
    if "auto_map" in config:
        raise CheckpointError(
            f"{name} ({model_type}) brings code of its own, which is not run; take its checkpoint for transformers, "
            "often called the same with -hf, such as OpenGVLab/InternVL3-1B-hf"
        )


def check_template(name: str, template: Any) -> None:
    """Render a chat template once, in a process of its own: it must end, and not fill the memory.

    What else may be wrong with it shows when a prompt is rendered.

    Args:
        name: what the user called the checkpoint.
        template: its Jinja source; anything else is no business of this check.

    Raises:
        CheckpointError: it takes more than 10 seconds or a gibibyte.
    """
    if not isinstance(template, str) or not sys.executable:
        return
    command = [sys.executable, "-I", __file__]
    limits = json.dumps({"template": template, "seconds": TEMPLATE_SECONDS, "bytes": TEMPLATE_BYTES})
    try:
        done = subprocess.run(command, input=limits, capture_output=True, text=True, timeout=10 * TEMPLATE_SECONDS)
        is_bounded = done.returncode == 0
    except subprocess.TimeoutExpired:
        is_bounded = False
    if not is_bounded:
        raise CheckpointError(
            f"cannot load {name}: its chat template takes more than {TEMPLATE_SECONDS} seconds or "
            f"{TEMPLATE_BYTES >> 20} MiB for one question; take the template of the original model"
        )


def read_json(name: str, path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Args:
        name: what the user called it.
        path: of the file.

    Raises:
        CheckpointError: it is not there, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot load {name}: {path.name} is no JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"cannot load {name}: {path.name} must hold a JSON object")
    return content


def _layer_counts(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _layer_counts(value)
        elif key in LAYER_NAMES and isinstance(value, int):
            yield key, value


def _render(template: str, seconds: int, most_bytes: int) -> None:
    """Render a conversation within limits; whatever else goes wrong is of no interest here."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        import resource
    except ImportError:  # Windows: the parent's clock is left
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    try:
        compiled = environment.from_string(template)
        compiled.render(messages=[{"role": "user", "content": content}], add_generation_prompt=True, bos_token="<s>")
    except MemoryError:
        sys.exit(1)
    except Exception:
        return


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    _render(wanted["template"], wanted["seconds"], wanted["bytes"])
