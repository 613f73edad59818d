"""A torchvision that can be imported next to a CPU build of torch.

PyPI's torchvision is built for CUDA. Next to a CPU build of torch its operators do not load, and the import fails
because they are not declared. The transforms that transformers uses need none of them, so declaring them is enough.
Where torchvision works, or is not installed, nothing happens.

tests/prepare_environment.py installs a copy of this file, so it imports nothing heavy before it is needed.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any


def repair_torchvision() -> Any:
    """Declare what is missing; the declarations live as long as the object that is returned."""
    import torch

    if torch._C._jit_get_schemas_for_operator("torchvision::nms") or not _is_broken():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _is_broken() -> bool:
    import torch

    package = PathFinder.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    try:
        for compiled in Path(package.origin).parent.glob("_C*.so"):
            torch.ops.load_library(compiled)
    except OSError:
        return True
    return False


class RepairBeforeImport:
    """A module finder that finds nothing, but repairs torchvision when it is looked for."""

    is_done = False
    library: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision" and not self.is_done:
            self.is_done = True
            self.library = repair_torchvision()


def repair_before_import() -> None:
    sys.meta_path.insert(0, RepairBeforeImport())
