"""The shape of the package: which part may know which, what is public, and that importing changes nothing."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import divprune

PACKAGE = Path(divprune.__file__).parent

# Which parts of the package each part may import; itself and the version are always allowed.
_BASE = {"errors", "json_over_http", "jsonl_log", "outputs", "progress", "records"}
_METHODS = _BASE | {"budget", "config", "encoder_options", "media", "methods", "selection"}
_ENGINES = _METHODS | {"huggingface", "vllm_plugin"}
_MODELS = _ENGINES | {"checkpoints", "embedded", "prompting"}
_RUNS = _MODELS | {"calibration", "distributed", "efficiency"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "outputs": {"errors"},
    "distributed": set(),
    "json_over_http": set(),
    "records": {"errors", "outputs"},
    "jsonl_log": {"errors", "outputs"},
    "media": {"errors", "progress"},
    "budget": {"errors"},
    "selection": {"budget", "errors", "lazy_torch"},
    "fidelity": set(),
    "lazy_torch": set(),
    "methods": {"budget", "errors", "fidelity", "lazy_torch", "records", "selection"},
    "encoder_options": {"methods"},
    "config": {"budget", "encoder_options", "errors", "methods"},
    "tuned_setting": {"checkpoint_places", "embedded", "errors", "huggingface", "outputs"},
    "huggingface": {
        "budget",
        "checkpoint_checks",
        "config",
        "encoder_options",
        "errors",
        "methods",
        "outputs",
        "records",
        "selection",
    },
    "vllm_plugin": {
        "budget",
        "checkpoint_checks",
        "checkpoint_places",
        "config",
        "errors",
        "media",
        "methods",
        "selection",
    },
    "embedded": _ENGINES,
    "efficiency": _MODELS,
    "calibration": _MODELS | {"efficiency"},
    "checkpoint_checks": {"errors"},
    "checkpoint_places": {"errors"},
    "checkpoint_processors": {"errors"},
    "checkpoints": _ENGINES | {"checkpoint_checks", "checkpoint_places", "checkpoint_processors", "embedded"},
    "prompting": {"checkpoints", "errors", "media"},
    "evaluation": _RUNS,
    "lmms_eval_plugin": _RUNS | {"evaluation", "tuned_setting"},
    "demo": _MODELS | {"efficiency"},
    "web_demo": _MODELS | {"demo", "efficiency"},
    "figures": _BASE | {"fidelity"},
    "experiments": _RUNS | {"demo", "evaluation", "fidelity", "figures", "serving", "tuned_setting"},
    "serving": _METHODS | {"checkpoint_checks", "checkpoint_places", "vllm_plugin"},
    "__main__": {"cli"},
    # Through the names that packages export.
    "cli": _BASE
    | {"budget", "calibration", "demo", "efficiency", "evaluation", "experiments", "fidelity", "figures"}
    | {"huggingface", "methods", "serving", "tuned_setting", "web_demo"},
}

# Third parties that only some parts may import, at module level or inside functions.
_WITHOUT_TORCH = {
    "budget",
    "checkpoint_checks",
    "checkpoint_places",
    "cli",
    "config",
    "distributed",
    "encoder_options",
    "errors",
    "fidelity",
    "figures",
    "json_over_http",
    "jsonl_log",
    "media",
    "outputs",
    "progress",
    "records",
    "tuned_setting",
}
CONFINED: dict[str, set[str]] = {
    "torch": set(ALLOWED) - _WITHOUT_TORCH,
    "transformers": {
        "huggingface",
        "embedded",
        "calibration",
        "evaluation",
        "experiments",
        "efficiency",
        "checkpoint_checks",
        "checkpoint_processors",
        "checkpoints",
        "prompting",
        "tuned_setting",
        "lmms_eval_plugin",
    },
    "triton": {"selection"},
    "vllm": {"vllm_plugin", "serving"},
    "ray": {"serving"},
    "typer": {"cli"},
    "rich": {"cli"},
    "gradio": {"web_demo"},
    "jinja2": {"checkpoint_checks", "demo", "experiments", "web_demo"},
    "matplotlib": {"figures"},
    "sklearn": {"figures"},
    "lmms_eval": {"lmms_eval_plugin"},
    "pycocoevalcap": {"evaluation", "lmms_eval_plugin"},
}

PUBLIC = [
    "VTW",
    "Certificate",
    "DivPrune",
    "FastV",
    "Pruning",
    "PruningConfig",
    "RandomTokens",
    "Selection",
    "UniformGrid",
    "__version__",
    "attach",
    "certificate",
    "get_method",
    "load_tuned",
    "prune",
    "select",
]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Every imported name in full: `from divprune.methods import base` gives `divprune.methods.base`."""
    return tuple(_imported_names(path))


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_part(name: str) -> str | None:
    """The part of this package that a name lies in; None for other packages and for `import divprune` itself."""
    package, _, rest = name.partition(".")
    if package != "divprune" or not rest:
        return None
    first = rest.partition(".")[0]
    if first in ALLOWED:
        return first
    # A public name, imported from the package: it lies where it is defined.
    return None if first == "__version__" else divprune._HOME[first].split(".")[1]


def test_every_part_is_known() -> None:
    assert {part_of(path) for path in modules()} <= set(ALLOWED)


# Folders with another reason: shared helpers, the suite behind docs/support.md, and the evaluation environment.
NOT_MIRRORED = {"support", "parity", "harness"}
# Tests of the repository as a whole: its layout, wheel, pages, tables and pins.
TOP_LEVEL = {"architecture", "examples", "method_pages", "packaging", "readme", "scene_tables", "site", "versions"}


def test_tests_mirror_the_package() -> None:
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests).parts[0] for path in tests.rglob("test_*.py") if path.parent != tests}
    parts = {part_of(path) for path in modules()}
    assert folders - NOT_MIRRORED <= parts
    named = {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")}
    assert named <= parts | TOP_LEVEL


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: Path) -> None:
    part = part_of(path)
    known = {imported_part(name) for name in imported_names(path)} - {None, part}
    assert known <= ALLOWED[part]


def test_the_allowed_dependencies_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {part for part, allowed in ALLOWED.items() if part not in done and allowed <= done}
        assert ready, f"a cycle among {set(ALLOWED) - done}"
        done |= ready


@pytest.mark.parametrize("package", CONFINED)
def test_third_parties_stay_in_their_part(package: str) -> None:
    users = {part_of(path) for path in modules() for name in imported_names(path) if name.split(".")[0] == package}
    assert users <= CONFINED[package]


def test_only_media_opens_images_and_videos() -> None:
    opening = re.compile(r"(?<![\w.])(?:PIL\.)?(?:Image|av)\.open\(")
    found = {path for path in modules() if opening.search(path.read_text(encoding="utf-8"))}
    # The figures open PNGs that this package made, and as nothing else.
    own = {PACKAGE / "figures" / name for name in ("samples.py", "saving.py")}
    assert {path for path in found if part_of(path) != "media"} == own
    assert all('formats=("PNG",)' in path.read_text(encoding="utf-8") for path in own)


def test_public_surface_is_frozen() -> None:
    assert divprune.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(divprune))
    for name in PUBLIC:
        assert getattr(divprune, name) is not None


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="prune_everything"):
        _ = divprune.prune_everything


def run_python(code: str) -> str:
    """Run code in a fresh process, from the repository's root."""
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_importing_the_package_is_cheap() -> None:
    heavy = ("torch", "transformers", "numpy")
    assert run_python(f"import sys, divprune; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_figures_know_neither_torch_nor_matplotlib_until_they_draw() -> None:
    heavy = ("torch", "transformers", "matplotlib", "sklearn")
    assert run_python(f"import sys, divprune.figures; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.slow
def test_importing_every_module_patches_nothing() -> None:
    code = """
import tests.conftest
import importlib, os, pkgutil, torch, transformers
from transformers.generation import GenerationMixin

def state():
    classes = (GenerationMixin, transformers.PreTrainedModel, torch.nn.Module)
    return [dict(vars(each)) for each in classes], dict(os.environ), torch.get_default_dtype()

before = state()
import divprune
for module in pkgutil.walk_packages(divprune.__path__, "divprune."):
    if not module.name.startswith(("divprune.vllm_plugin", "divprune.lmms_eval_plugin", "divprune.selection.fused_k")):
        importlib.import_module(module.name)
print(state() == before)
"""
    assert run_python(code) == "True"


def test_library_errors_name_arguments_not_options() -> None:
    """The command line puts options in place of names in backticks; flags of vLLM and lmms-eval are meant as such."""
    found = []
    for path in modules():
        if part_of(path) in ("cli", "vllm_plugin") or path.parent.name == "models":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Raise):
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                # A whole command that is the remedy stands in backticks.
                found += [
                    (path.name, text)
                    for text in texts
                    if isinstance(text, str) and " --" in re.sub("`[^`]*`", "", text)
                ]
    assert found == []


# Top-level names that two modules of the package define, and why. The list only shrinks.
DEFINED_TWICE = {
    "answer": "lmms-eval's tasks and the demonstration each answer",
    "caption": "every figure has one, and so have generated scenes",
    "draw": "every figure has one",
    "egoschema": "lmms-eval's tasks name a scorer and a submission",
}


def test_a_name_is_defined_once() -> None:
    homes: dict[str, set[Path]] = {}
    for path in modules():
        for node in tree_of(path).body:
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_") and path.name != "__init__.py":
                    homes.setdefault(name, set()).add(path)
    assert {name for name, paths in homes.items() if len(paths) > 1} == set(DEFINED_TWICE)


def test_the_field_says_image_and_video() -> None:
    words = re.compile(r"\b([Pp]ictures?|[Cc]lips?)\b")
    lines = [line for path in modules() for line in path.read_text(encoding="utf-8").splitlines() if words.search(line)]
    # Words of generated questions, of data sets' settings and of records that exist already.
    assert len(lines) <= 40
