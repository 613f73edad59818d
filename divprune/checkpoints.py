"""Load a checkpoint by directory or hub name, or the embedded one: always the same path through transformers."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from divprune.checkpoint_checks import check_folder, check_format, check_template, read_json
from divprune.checkpoint_places import checkpoint_folder, hub_config, hub_error
from divprune.checkpoint_processors import read_processor
from divprune.embedded import EMBEDDED_FOLDERS, checkpoint_path
from divprune.errors import CheckpointError, DivpruneError, UnsupportedModelError, first_line
from divprune.records import checksum

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin


Part = TypeVar("Part")

EMBEDDED, EMBEDDED_VIDEO = EMBEDDED_FOLDERS
"""Names of the models that come with the package: for images, and for videos."""

_CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_OTHER_FORMATS = ["original/*", "consolidated*"]  # the same weights again, in layouts that transformers does not read


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and its processor.

    Attributes:
        name: what the user called it; "embedded" or "embedded-video" for those that come with the package.
        model: in evaluation mode, on its device.
        processor: prompt and media to model inputs, and back.
    """

    name: str
    model: "PreTrainedModel"
    processor: "ProcessorMixin"


def load_model(
    name: str | None,
    device: torch.device,
    dtype: str,
    *,
    revision: str | None = None,
    show_download: bool = False,
) -> LoadedModel:
    """Load a checkpoint of a supported family.

    Args:
        name: directory or hub name; None or "embedded" for the embedded model, "embedded-video" for that of videos.
        device: where it runs.
        dtype: "float32", "float16", "bfloat16", or "auto" for the checkpoint's own (float32 for float16 on a CPU).
        revision: branch, tag or commit of the hub's checkpoint; None for its newest.
        show_download: whether the hub may draw its progress bars.

    Raises:
        CheckpointError: no such checkpoint, not complete, or not loadable; the message says why.
        UnsupportedModelError: the family has no adapter; found out before the weights are read.
    """
    called = name or EMBEDDED
    is_embedded = called in EMBEDDED_FOLDERS
    if is_embedded and revision is not None:
        raise CheckpointError(f"the embedded model has no revision {revision!r}; leave the revision out")
    if is_embedded:
        path = _embedded_checkpoint(called)
    else:
        path = checkpoint_folder(called, revision) or _hub_checkpoint(called, revision, show_download)
    check_folder(called, path)
    config = _loaded(called, lambda: _read_config(path))
    _require_supported(called, config.model_type)
    processor = _loaded(called, lambda: read_processor(path))
    if not is_embedded:
        check_template(called, getattr(processor, "chat_template", None))
    with _quiet_bars():
        model = _loaded(called, lambda: _read_model(path, _dtype(dtype, config, device)))
    model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    return LoadedModel(called, model, processor)


def checkpoint_config(name: str | None, *, revision: str | None = None) -> "PreTrainedConfig":
    """Read the config of a checkpoint of a supported family, without its weights.

    Args:
        name: as for `load_model`.
        revision: as for `load_model`.

    Raises:
        CheckpointError: no such checkpoint, or its config cannot be read.
        UnsupportedModelError: the family has no adapter.
    """
    called = name or EMBEDDED
    if called in EMBEDDED_FOLDERS:
        path = _embedded_checkpoint(called)
    else:
        path = checkpoint_folder(called, revision) or _checked_hub_config(called, revision)
    config: PreTrainedConfig = _loaded(called, lambda: _read_config(path))
    _require_supported(called, config.model_type)
    return config


def checkpoint_revision(name: str | None) -> str:
    """Name the version of a checkpoint, without loading it.

    Returns:
        The newest commit of a hub's checkpoint (the cached one without a connection), whose config is fetched; of a
        directory, and of the embedded model, a checksum over its files and pieces of the large ones.

    Raises:
        CheckpointError: no such checkpoint.
    """
    called = name or EMBEDDED
    path = _embedded_checkpoint(called) if called in EMBEDDED_FOLDERS else Path(called).expanduser()
    if os.path.isdir(path):
        files = {file for pattern in _CHECKPOINT_FILES for file in path.glob(pattern) if file.is_file()}
        return checksum(sorted(files))[:16]
    return hub_config(called).parent.name


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device that is there.

    Raises:
        CheckpointError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError):
        raise CheckpointError(f"`device` {name} is not available on this machine; use auto or cpu") from None
    return device


def _embedded_checkpoint(name: str) -> Path:
    try:
        return checkpoint_path(name)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from None


def _checked_hub_config(name: str, revision: str | None) -> Path:
    """Fetch the config of a checkpoint whose format can be read; return its folder."""
    file = hub_config(name, revision)
    check_format(name, read_json(name, file))
    return file.parent


def _hub_checkpoint(name: str, revision: str | None, show_download: bool) -> Path:
    """Download (or find in the local cache) a checkpoint; its family is checked before its weights are fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    def fetch() -> str:
        config = _read_config(_checked_hub_config(name, revision))
        _require_supported(name, config.model_type)
        return snapshot_download(
            name, revision=revision, allow_patterns=_CHECKPOINT_FILES, ignore_patterns=_OTHER_FORMATS
        )

    if show_download:
        enable_progress_bars()
    try:
        return Path(fetch())
    except DivpruneError:
        raise
    except Exception as error:
        raise hub_error(name, error) from None
    finally:
        disable_progress_bars()


def _require_supported(name: str, model_type: str) -> None:
    from divprune.huggingface.families.registry import family_named

    try:
        family_named(model_type)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{name}: {error}") from None


def _loaded(name: str, load: Callable[[], Part]) -> Part:
    """Run one step of loading; what goes wrong inside transformers becomes one line."""
    try:
        return load()
    except (DivpruneError, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:
        raise CheckpointError(_missing_package(name, error)) from None
    # Damaged files raise whatever the parser of the day raises.
    except Exception as error:
        raise CheckpointError(f"cannot load {name}: {first_line(error)}") from None


def _missing_package(name: str, error: ImportError) -> str:
    if "torchvision" in str(error).lower() or " av " in str(error).lower():
        return f'{name} has a video processor, which needs more packages: pip install "divprune[video]"'
    return f"{name} needs a package that is not installed: {first_line(error)}"


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Silence transformers' progress bars inside the block."""
    from transformers.utils import logging

    were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            logging.enable_progress_bar()


def _read_config(path: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)


def _read_model(path: Path, dtype: torch.dtype | str) -> "PreTrainedModel":
    from transformers import AutoModelForImageTextToText

    load: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
    model, report = load(
        path,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would go on with random numbers in their place.
        raise CheckpointError(f"{path} is incomplete: {len(missing)} weights are missing, such as {missing[0]}")
    loaded: PreTrainedModel = model.eval()
    return loaded


def _dtype(name: str, config: Any, device: torch.device) -> torch.dtype | str:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    # Half precision is slow on most CPUs, and some of its operators are missing there.
    return torch.float32 if device.type == "cpu" and config.dtype == torch.float16 else "auto"
