"""The wheel: what is in it, and that it works where nothing else of the repository is."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_WHEEL_BYTES = 26_000_000  # each embedded model may have 12 MB


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the core dependencies, which torchvision is not one of."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("torchvision", "divprune", "_divprune")) and entry.suffix != ".pth":
            (site_packages / entry.name).symlink_to(entry)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return folder


def test_wheel_holds_the_model_the_templates_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = (
        "py.typed",
        "embedded/checkpoint/model.safetensors",
        "embedded/checkpoint/config.json",
        "embedded/video_checkpoint/model.safetensors",
        "embedded/video_checkpoint/processor_config.json",
        "demo/templates/report.css",
        "experiments/tuning/templates/tuned.html.j2",
        "web_demo/templates/gallery.html.j2",
        "web_demo/templates/viewer.js",
        "huggingface/families/support.json",
        "serving/served.json",
    )
    assert {f"divprune/{name}" for name in needed} <= names
    assert {name.split("/")[0] for name in names} == {
        "divprune",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert metadata["Name"] == "divprune"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    extras = {"video", "viz", "exact", "captions", "vllm", "ray", "eval", "demo", "docs", "dev"}
    assert set(metadata.get_all("Provides-Extra") or []) == extras
    assert "divprune = divprune.cli.main:app" in entry_points
    assert "divprune = divprune.vllm_plugin.registration:register" in entry_points
    assert "divprune = divprune.lmms_eval_plugin.registration:manifests" in entry_points


@pytest.mark.slow
def test_installed_wheel_answers_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    """Also the exact set of core dependencies: no torchvision, no extras needed."""
    module = subprocess.run(
        [installed / "bin" / "python", "-c", "import divprune; print(divprune.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert Path(module.stdout.strip()).is_relative_to(installed)
    command = [installed / "bin" / "divprune", "run", "--json", "--repeats", "1", "--report", "report.html"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["model"] == "embedded"
    assert len(result["rows"]) >= 8
    for row in result["rows"]:
        assert row["num_kept"] == len(row["kept_indices"]) < row["num_visual_tokens"] / 8
        assert row["answer_unpruned"]
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_missing_file_is_one_line_in_a_real_process(installed: Path, tmp_path: Path) -> None:
    command = [installed / "bin" / "divprune", "run", "--image", "nowhere.png"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == "error: no such image: nowhere.png\n"


@pytest.mark.parametrize("target", ["run", "test", "test-serving", "test-docs", "check", "bench", "docs"])
def test_makefile_target_can_be_planned(target: str) -> None:
    finished = subprocess.run(["make", "--dry-run", target], capture_output=True, text=True, check=False, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr
    assert ".venv" in finished.stdout
