"""The file of a tuned setting: written, read, and refused by another model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from divprune import load_tuned, prune
from divprune.embedded import checkpoint_path
from divprune.errors import ArgumentError, TuningError
from divprune.huggingface.fingerprint import checkpoint_fingerprint, fingerprint
from divprune.tuned_setting import TunedSetting, read_tuned, tuned_for_checkpoint
from tests.support import checkpoint_writers

EVIDENCE = {"loss": {"value": 0.004, "low": 0.0, "high": 0.012}, "num_confirming": 300}


def setting_of(fingerprint_: str, **fields: object) -> TunedSetting:
    values = {"method": "divprune", "keep_ratio": 0.25, "positions": None, "model": "mine"} | fields
    return TunedSetting(**values, fingerprint=fingerprint_, evidence=EVIDENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_writers.write_llava(tmp_path_factory.mktemp("tuned") / "llava")


@pytest.mark.parametrize("write", ["write_llava", "write_qwen2_5_vl", "write_llava_next_video"])
def test_a_checkpoint_is_told_on_disk_as_in_memory(write: str, tmp_path: Path) -> None:
    folder = getattr(checkpoint_writers, write)(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert checkpoint_fingerprint(folder) == fingerprint(model)


def test_the_embedded_model_too() -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint_path())
    assert checkpoint_fingerprint(checkpoint_path()) == fingerprint(model)


def test_written_and_read(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "tuned.json"
    written = setting_of(checkpoint_fingerprint(folder), positions="compact")
    written.save(path)
    assert read_tuned(path) == written
    assert tuned_for_checkpoint(path, str(folder)) == written
    written.save(path)  # an earlier one is replaced
    assert "0.25" in str(written)
    assert "at most 1.2%" in str(written)


def test_a_pruned_model_is_pruned_as_the_file_says(tmp_path: Path, folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    path = tmp_path / "tuned.json"
    setting_of(fingerprint(model), method="random:seed=3").save(path)
    with prune(model, **load_tuned(path, model)) as pruning:
        assert "keep_ratio=0.25" in repr(pruning)
        assert "seed=3" in repr(pruning)


def test_another_model_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "tuned.json"
    setting_of(checkpoint_fingerprint(checkpoint_path()), model="embedded").save(path)
    with pytest.raises(TuningError, match=r"of another model \(embedded"):
        tuned_for_checkpoint(path, str(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with pytest.raises(TuningError, match="run `divprune tune`"):
        load_tuned(path, model)


def test_other_weights_of_the_same_shape_are_refused(tmp_path: Path, folder: Path) -> None:
    path, other = tmp_path / "tuned.json", tmp_path / "other"
    setting_of(checkpoint_fingerprint(folder)).save(path)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        model.get_output_embeddings().weight[0] += 1
    shutil.copytree(folder, other)
    model.save_pretrained(other)
    with pytest.raises(TuningError, match="weights"):
        tuned_for_checkpoint(path, str(other))


def test_a_checkpoint_without_weights_yet_is_told_by_its_config(tmp_path: Path, folder: Path) -> None:
    path, bare = tmp_path / "tuned.json", tmp_path / "bare"
    setting_of(checkpoint_fingerprint(folder)).save(path)
    bare.mkdir()
    shutil.copy(folder / "config.json", bare)
    assert tuned_for_checkpoint(path, str(bare)).keep_ratio == 0.25


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "divprune tuned setting, version 2"}', '{"format": 1, "setting": {}}']
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(content)
    with pytest.raises(TuningError, match="divprune tune"):
        read_tuned(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="make one with `divprune tune`"):
        read_tuned(tmp_path / "tuned.json")


def test_another_program_s_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"mine": 1}))
    with pytest.raises(ArgumentError, match=r"tuned\.json"):
        setting_of("x").save(path)
    assert json.loads(path.read_text()) == {"mine": 1}
