"""Shared set-up: offline, one thread, and a torchvision that can be imported."""

import importlib.util
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at import

import torch


def _repair_torchvision() -> torch.library.Library | None:
    """Let `import torchvision` succeed where its compiled part does not fit torch.

    PyPI's torchvision is built for CUDA. Next to a CPU build of torch its operators do not load, and the import fails
    because they are not declared. The transforms that transformers uses need none of them, so declaring them is enough.
    Where torchvision works, or is not installed, nothing happens.
    """
    if not _torchvision_is_broken():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _torchvision_is_broken() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    try:
        for compiled in Path(package.origin).parent.glob("_C*.so"):
            torch.ops.load_library(compiled)
    except OSError:
        return True
    return False


_torchvision_library = _repair_torchvision()  # the declarations live as long as this object
torch.set_num_threads(1)
