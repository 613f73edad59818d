"""Checkpoints by name: which version is loaded, and how it is told from others."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from divprune.checkpoints import EMBEDDED, checkpoint_revision, load_model
from divprune.errors import CheckpointError, DivpruneError
from tests.support import checkpoint_writers

CPU = torch.device("cpu")
COMMITS = ("1" * 40, "2" * 40)
NAME = "somebody/model"


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_writers.write_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture
def cache(llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's local cache with two commits of one checkpoint; `main` is the first, `newer` the second."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--somebody--model"
    for commit, branch in zip(COMMITS, ("main", "newer"), strict=True):
        shutil.copytree(llava, folder / "snapshots" / commit)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    config = folder / "snapshots" / COMMITS[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"told_apart": True}))
    return folder


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("revision", "is_newer"), [(None, False), ("main", False), ("newer", True), (COMMITS[1], True)]
)
def test_revision_of_the_hub_is_the_one_loaded(revision: str | None, is_newer: bool) -> None:
    loaded = load_model(NAME, CPU, "float32", revision=revision)
    assert loaded.name == NAME
    assert hasattr(loaded.model.config, "told_apart") == is_newer


@pytest.mark.usefixtures("cache")
def test_revision_that_the_cache_lacks() -> None:
    with pytest.raises(CheckpointError, match="not in the local cache"):
        load_model(NAME, CPU, "float32", revision="never-heard-of")


def test_revision_of_a_directory_is_refused(llava: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory, which has no revision 'main'; leave the revision out"):
        load_model(str(llava), CPU, "float32", revision="main")


@pytest.mark.parametrize("name", [None, EMBEDDED])
def test_revision_of_the_embedded_model_is_refused(name: str | None) -> None:
    with pytest.raises(CheckpointError, match="the embedded model has no revision 'main'"):
        load_model(name, CPU, "float32", revision="main")


def test_errors_are_caught_as_one() -> None:
    assert issubclass(CheckpointError, DivpruneError)
    with pytest.raises(CheckpointError, match="no such checkpoint directory"):
        load_model("./nowhere", CPU, "float32")


@pytest.mark.usefixtures("cache")
def test_revision_of_a_hub_name_is_the_cached_commit() -> None:
    assert checkpoint_revision(NAME) == COMMITS[0]


@pytest.mark.parametrize("name", ["somebody/other", "no such name", "./nowhere", "a/b/c"])
def test_what_is_not_there_has_no_revision(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(name)):
        checkpoint_revision(name)


def test_embedded_model_has_one_revision(tmp_path: Path) -> None:
    from divprune.embedded import checkpoint_path

    found = checkpoint_revision(EMBEDDED)
    assert found is not None
    assert len(found) == 16
    assert found == checkpoint_revision(None) == checkpoint_revision(EMBEDDED)
    assert found == checkpoint_revision(str(shutil.copytree(checkpoint_path(), tmp_path / "copy")))


def test_revision_of_a_directory_does_not_depend_on_its_place(llava: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(llava, tmp_path / "elsewhere")
    (copy / "README.md").write_text("not part of the model")
    assert checkpoint_revision(str(copy)) == checkpoint_revision(str(llava))


def retrain(folder: Path) -> None:
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)


def lengthen(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")


def rename(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")


def configure(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")


@pytest.mark.parametrize("change", [retrain, lengthen, rename, configure])
def test_revision_of_a_directory_changes_with_its_files(
    llava: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(llava, tmp_path / "changed")
    change(copy)
    assert checkpoint_revision(str(copy)) != checkpoint_revision(str(llava))
