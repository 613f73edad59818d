"""Load a checkpoint by directory or hub name, or the embedded one: always the same path through transformers."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from divprune.checkpoint_checks import check_folder, check_format, check_template, checkpoint_folder, hub_error
from divprune.errors import CheckpointError, DivpruneError, UnsupportedModelError, argument_errors, first_line
from divprune.records import checksum

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

    from divprune.config import PruningConfig
    from divprune.methods.item_context import Modality

Part = TypeVar("Part")

EMBEDDED = "embedded"
"""Name of the model that comes with the package."""

_CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_OTHER_FORMATS = ["original/*", "consolidated*"]  # the same weights again, in layouts that transformers does not read


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and its processor.

    Attributes:
        name: what the user called it; "embedded" for the bundled one.
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
        name: directory or hub name; None or "embedded" for the embedded model.
        device: where it runs.
        dtype: "float32", "float16", "bfloat16", or "auto" for the checkpoint's own (float32 for float16 on a CPU).
        revision: branch, tag or commit of the hub's checkpoint; None for its newest.
        show_download: whether the hub may draw its progress bars.

    Raises:
        CheckpointError: no such checkpoint, not complete, or not loadable; the message says why.
        UnsupportedModelError: the family has no adapter; found out before the weights are read.
    """
    called = name or EMBEDDED
    if called == EMBEDDED and revision is not None:
        raise CheckpointError(f"the embedded model has no revision {revision!r}; leave the revision out")
    path = _embedded_checkpoint() if called == EMBEDDED else _local_checkpoint(called, revision, show_download)
    check_folder(called, path)
    config = _loaded(called, lambda: _read_config(path))
    _require_supported(called, config.model_type)
    processor = _loaded(called, lambda: _read_processor(path))
    if called != EMBEDDED:
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
    if called == EMBEDDED:
        path = _embedded_checkpoint()
    else:
        path = _local_folder(called, revision) or _hub_config(called, revision)
    config: PreTrainedConfig = _loaded(called, lambda: _read_config(path))
    _require_supported(called, config.model_type)
    return config


def require_prunable(
    model_config: "PreTrainedConfig", configs: "Iterable[PruningConfig]", shown: "Collection[Modality]" = ()
) -> None:
    """Refuse settings that cannot work on a model, by its config alone, before its weights are read.

    Args:
        model_config: as `checkpoint_config` returns it.
        configs: how it is to be pruned.
        shown: the modalities that it will be shown; none if they are not known.

    Raises:
        ArgumentError: a setting does not apply to the model, or a method to a modality.
        DivpruneError: what a method reads is not known of the model.
    """
    from divprune.huggingface.fitting import require_fitting_config, weightless_model

    model = weightless_model(model_config)
    with argument_errors():
        for config in configs:
            require_fitting_config(model, config, shown)


def misfits(
    model_config: "PreTrainedConfig", configs: "Iterable[tuple[PruningConfig, Collection[Modality]]]"
) -> list[str | None]:
    """Say of each of several settings and the modalities shown why `require_prunable` refuses it; None if it fits."""
    from divprune.huggingface.fitting import require_fitting_config, weightless_model

    model = weightless_model(model_config)
    reasons: list[str | None] = []
    for config, shown in configs:
        try:
            require_fitting_config(model, config, shown)
            reasons.append(None)
        except (DivpruneError, ValueError) as error:
            reasons.append(" ".join(str(error).split()))
    return reasons


def checkpoint_revision(name: str | None) -> str:
    """Name the version of a checkpoint, without loading it.

    Returns:
        The newest commit of a hub's checkpoint (the cached one without a connection), whose config is fetched; of a
        directory, and of the embedded model, a checksum over its files and pieces of the large ones.

    Raises:
        CheckpointError: no such checkpoint.
    """
    from huggingface_hub import hf_hub_download

    called = name or EMBEDDED
    path = _embedded_checkpoint() if called == EMBEDDED else Path(called).expanduser()
    if os.path.isdir(path):
        files = {file for pattern in _CHECKPOINT_FILES for file in path.glob(pattern) if file.is_file()}
        return checksum(sorted(files))[:16]
    try:
        return Path(hf_hub_download(called, "config.json")).parent.name
    except Exception as error:
        raise hub_error(called, error) from None


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


def _embedded_checkpoint() -> Path:
    from divprune.embedded import checkpoint_path

    try:
        return checkpoint_path()
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from None


def _local_checkpoint(name: str, revision: str | None, show_download: bool) -> Path:
    return _local_folder(name, revision) or _hub_checkpoint(name, revision, show_download)


def _local_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of a checkpoint on this machine; None for what can only be a hub's name."""
    path = checkpoint_folder(name)
    if path is not None and revision is not None:
        raise CheckpointError(f"{name} is a directory, which has no revision {revision!r}; leave the revision out")
    return path


def _hub_config(name: str, revision: str | None) -> Path:
    """Download (or find in the local cache) the config of a checkpoint whose format can be read; its folder."""
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(name, "config.json", revision=revision))
        check_format(name, json.loads(file.read_text(encoding="utf-8")))
    except DivpruneError:
        raise
    except Exception as error:
        raise hub_error(name, error) from None
    return file.parent


def _hub_checkpoint(name: str, revision: str | None, show_download: bool) -> Path:
    """Download (or find in the local cache) a checkpoint; its family is checked before its weights are fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    def fetch() -> str:
        config = _read_config(_hub_config(name, revision))
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


def _read_processor(path: Path) -> "ProcessorMixin":
    from transformers import AutoProcessor, ProcessorMixin

    processor = AutoProcessor.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    if not isinstance(processor, ProcessorMixin):
        raise CheckpointError(f"{path} has no processor for images (processor_config.json or preprocessor_config.json)")
    return processor


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
