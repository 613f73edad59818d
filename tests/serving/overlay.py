"""Another release's Python files over the compiled modules of the vLLM that is installed, for `make test-serving-next`.

vLLM publishes no build for CPUs of each release, and its plain wheel's compiled modules want CUDA. What the plugin
relies on is Python. So a folder gets the `vllm/**` of a plain wheel without compiled modules, and links to those of the
installed build; first on PYTHONPATH, it is what `import vllm` finds.

    python tests/serving/overlay.py FOLDER      # FOLDER holds the wheel, which is removed afterwards
"""

import sys
import sysconfig
import zipfile
from pathlib import Path

DATA = (".py", ".json", ".jinja", ".txt")
COMPILED = "*.so"


def main(folder: Path) -> None:
    (wheel,) = folder.glob("vllm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("vllm/") and name.endswith(DATA)]
        archive.extractall(folder, names)
    installed = Path(sysconfig.get_path("purelib")) / "vllm"
    compiled = [path for path in installed.rglob(COMPILED) if "third_party" not in path.parts]
    if not compiled:
        sys.exit(
            f"vLLM must be installed with compiled modules, found none in {installed}; run make .venv-serving/.stamp"
        )
    for path in compiled:
        link = folder / "vllm" / path.relative_to(installed)
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    wheel.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
