"""Version bounds: what pyproject.toml allows is what an environment of the tests installs."""

import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import transformers
from packaging.requirements import Requirement
from packaging.version import Version

from divprune.huggingface.families.support import load_support
from divprune.huggingface.tested_version import NEWEST_TESTED, warn_beyond_tested

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {
    each.name: each
    for name in ("video", "viz", "exact")
    for each in map(Requirement, PROJECT["optional-dependencies"][name])
}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {package.lower(): Version(version) for package, version in pairs}


def lower_bound(requirement: Requirement) -> Version | None:
    return next((Version(each.version) for each in requirement.specifier if each.operator == ">="), None)


@pytest.mark.parametrize("name", sorted(REQUIRED | EXTRAS))
def test_the_floor_environment_installs_every_lower_bound(name: str) -> None:
    bound = lower_bound((REQUIRED | EXTRAS)[name])
    assert bound is None or pins("constraints-floor.txt")[name] == bound


@pytest.mark.parametrize(
    "file",
    [
        "constraints.txt",
        "constraints-floor.txt",
        "constraints-serving.txt",
        "constraints-eval.txt",
        "constraints-demo.txt",
    ],
)
def test_pinned_versions_are_allowed(file: str) -> None:
    pinned = pins(file)
    for name, requirement in REQUIRED.items():
        assert requirement.specifier.contains(pinned[name]), name


def test_the_next_minor_of_transformers_waits_until_it_was_tried() -> None:
    major, minor = Version(NEWEST_TESTED).release
    allowed = REQUIRED["transformers"].specifier
    assert allowed.contains(f"{major}.{minor}.9")
    assert not allowed.contains(f"{major}.{minor + 1}.0")
    assert Version(load_support().newest).release[:2] == (major, minor)


def test_a_newer_transformers_is_named_by_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"transformers 6\.0\.1 is newer than"):
        warn_beyond_tested("6.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_beyond_tested(f"{NEWEST_TESTED}.9")


def test_importing_warns() -> None:
    code = (
        "from divprune.huggingface import tested_version; tested_version.NEWEST_TESTED = '5.1'; "
        "from divprune import prune"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert f"UserWarning: transformers {transformers.__version__} is newer than 5.1" in done.stderr


def test_the_installed_transformers_is_within_the_bounds() -> None:
    assert REQUIRED["transformers"].specifier.contains(transformers.__version__)
