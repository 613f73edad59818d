"""Run a quick part of the tests beside whatever versions are installed, and report: `make test-latest`.

The part: every family is known or refused, two families in every way of calling, one of them inside the language model,
later turns, selection, the command line. It takes a few minutes; `make test` is the whole.
"""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/huggingface/test_families.py",
    "tests/huggingface/test_cache_names.py",
    "tests/huggingface/test_kept_cache.py",
    "tests/huggingface/test_attach.py",
    "tests/huggingface/test_layers_calls.py",
    "tests/parity/test_parity.py",
    "tests/selection/test_select.py",
    "tests/cli/test_run.py",
    "tests/cli/test_errors.py",
)
# Of the parity suite two families: one counts tokens, one has (frame, row, column) coordinates; the rest runs whole.
CHOSEN = "not test_cell or llava- or qwen2_5_vl-"


def changed_versions() -> list[tuple[str, str, str]]:
    """(package, version in constraints.txt, installed version) where the two differ."""
    changed = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, _, pinned = line.partition("==")
        try:
            installed = version(name) if pinned else pinned
        except PackageNotFoundError:
            continue
        if installed.partition("+")[0] != pinned:
            changed.append((name, pinned, installed))
    return changed


def is_allowed() -> bool:
    """Whether pyproject.toml allows the installed transformers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = next(each for each in map(Requirement, project["dependencies"]) if each.name == "transformers")
    return bounds.specifier.contains(version("transformers"))


def main() -> None:
    """Run the tests, print what differs, and end with one line; exit as pytest does."""
    if "--if-beyond-bounds" in sys.argv and is_allowed():
        print("latest: pip has no transformers beyond our bounds yet")
        return
    warnings = ["-W", "error", "-W", "ignore:transformers .* is newer than:UserWarning"]
    # No cell is compared with the record of another version, only with its reference.
    command = ["pytest", "-q", "-n", "2", *warnings, "-k", CHOSEN, *TESTS]
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
    print(f"\nPython {sys.version.split()[0]}, torch {version('torch')}, transformers {version('transformers')}")
    for name, pinned, installed in changed_versions():
        print(f"  {name} {installed} (make test: {pinned})")
    print("latest: ok" if finished.returncode == 0 else "latest: FAILED, see above")
    sys.exit(finished.returncode)


if __name__ == "__main__":
    main()
