"""Make vLLM and lmms-eval importable in the environment that runs this script; for tests only.

Dependencies of theirs come from the index in builds for CUDA, which do not load next to a CPU build of torch. They and
transformers need torchvision's transforms, and start processes of their own, so every process of the environment gets
tests/torchvision_repair.py. Others vLLM can do without; the Makefile uninstalls them.
"""

import shutil
import sysconfig
from pathlib import Path

NAME = "divprune_tests_torchvision_repair"


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copy(Path(__file__).parent / "torchvision_repair.py", packages / f"{NAME}.py")
    (packages / f"{NAME}.pth").write_text(f"import {NAME}; {NAME}.repair_before_import()\n", encoding="utf-8")


if __name__ == "__main__":
    main()
