"""Every mistake gets one line that says what to do, exit code 2, and no traceback."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from divprune.checkpoint_places import hub_error
from divprune.cli.console import one_line_errors
from divprune.huggingface.families.unsupported import NO_CLASS
from tests.support import checkpoint_writers
from tests.support.commands import Command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.png"], "no such image: nowhere.png"),
        (["--image", "."], "is not a file"),
        (["--video", "nowhere.mp4"], "no such video: nowhere.mp4"),
        (["--method", "divprun"], "no method named 'divprun'.*did you mean 'divprune'"),
        (["--method", "random:sed=1"], "no parameter 'sed'"),
        (["--method", "random:seed=x"], "must be of type int, got 'x'"),
        (["--keep-ratio", "0"], r"keep_ratio must be in \(0, 1\], got 0.0"),
        (["--keep-ratio", "1.5"], r"keep_ratio must be in \(0, 1\], got 1.5"),
        (["--keep-ratio", "nan"], "keep_ratio must be"),
        (["--num-keep", "0"], "num_keep must be at least 1, got 0"),
        (["--keep-ratio", "0.5", "--num-keep", "5"], "--keep-ratio or --num-keep, not both"),
        (
            ["--method", "vtw", "--keep-ratio", "0.5"],
            "--keep-ratio and --num-keep must be left out with 'vtw', which says itself",
        ),
        (["--prompt", "  "], "--prompt is empty"),
        (["--report", "."], "is a directory"),
        (["--report", "no/such/folder/report.html"], "there is no directory no/such/folder"),
        (["--device", "meta"], "--device meta is not available"),
        (["--device", "gpu"], "--device gpu is not available"),
        (["--device", "cuda:99"], "--device cuda:99 is not available"),
    ],
)
def test_wrong_argument_is_found_before_the_model_is_loaded(
    divprune: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("divprune.checkpoints.load_model", None)
    outcome = divprune("run", *arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert re.search(message, outcome.error)


def test_layer_that_the_model_does_not_have(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--method", "divprune:layer=99")
    assert outcome.exit_code == 2
    assert re.search("layer must be between 1 and .* for this model, got 99", outcome.error)


def test_not_a_picture_and_truncated_picture(divprune: Command, picture: Path, tmp_path: Path) -> None:
    text, half = tmp_path / "notes.txt", tmp_path / "half.png"
    text.write_text("not a picture")
    half.write_bytes(picture.read_bytes()[:50_000])
    for path, message in ((text, "is not an image"), (half, "is truncated or damaged")):
        outcome = divprune("run", "--image", path)
        assert outcome.exit_code == 2
        assert message in outcome.error


@pytest.mark.parametrize(
    "arguments",
    [["--num-frames", "0"], ["--max-new-tokens", "0"], ["--dtype", "int8"], ["--keep-ratio", "a"], ["--no"]],
)
def test_usage_error(divprune: Command, arguments: list[str]) -> None:
    outcome = divprune("run", *arguments)
    assert outcome.exit_code == 2
    assert "Traceback" not in outcome.stderr


def test_unsupported_model_is_named_with_the_supported_ones(divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("run", "--model", checkpoint_writers.write_text_model(tmp_path / "text"))
    assert outcome.exit_code == 2
    assert f"no adapter for 'mistral' ({NO_CLASS}); `divprune families` lists" in outcome.error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", "nobody/nothing is no directory here and not in the local cache, and the hub cannot be"),
        ("no such/name", "neither a directory here nor a valid hub name"),
        ("nowhere", "no such checkpoint directory: nowhere; names of the hub have their owner in front"),
        ("./nowhere", "no such checkpoint directory: ./nowhere"),
        ("a/b/c", "no such checkpoint directory: a/b/c"),
    ],
)
def test_model_that_cannot_be_found(divprune: Command, name: str, message: str) -> None:
    outcome = divprune("run", "--model", name)
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_hub_answers_are_told_apart() -> None:
    from huggingface_hub import errors

    cases: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "gated"),
        (errors.RepositoryNotFoundError, "nor a model on the hub"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.RemoteEntryNotFoundError, "no config.json"),
        (ConnectionError, "cannot be reached"),
    )
    for kind, message in cases:
        error = kind.__new__(kind)  # their constructors want a response
        assert message in str(hub_error("some/model", error))


def test_directory_without_checkpoint(divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("run", "--model", tmp_path)
    assert outcome.exit_code == 2
    assert outcome.error.endswith("is no checkpoint: it has no config.json")


def test_file_as_model(divprune: Command, picture: Path) -> None:
    assert "takes the directory of a checkpoint" in divprune("run", "--model", picture).error


def damaged(tmp_path: Path, file: str, content: bytes | None) -> Path:
    """A checkpoint with one file cut short, replaced or (None) missing."""
    folder = checkpoint_writers.write_llava(tmp_path / "damaged")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content or (folder / file).read_bytes()[:1000])
    return folder


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "never-heard-of"}'),
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("processor_config.json", None),
        ("tokenizer.json", b"{}"),
    ],
)
def test_damaged_checkpoint(divprune: Command, tmp_path: Path, file: str, content: bytes | None) -> None:
    outcome = divprune("run", "--model", damaged(tmp_path, file, content))
    assert outcome.exit_code == 2
    assert outcome.error.startswith(("cannot load ", str(tmp_path)))


def test_missing_weights_are_not_replaced_by_random_ones(divprune: Command, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = checkpoint_writers.write_llava(tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    weights.pop(min(name for name in weights if "projector" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    outcome = divprune("run", "--model", folder)
    assert outcome.exit_code == 2
    assert "1 weights are missing" in outcome.error


def test_remote_code_is_never_run(divprune: Command, tmp_path: Path) -> None:
    folder = checkpoint_writers.write_llava(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    assert divprune("run", "--model", folder).exit_code == 2
    assert not (tmp_path / "was_run").exists()


def test_pickled_weights_are_refused(divprune: Command, llava: Path, tmp_path: Path) -> None:
    folder = damaged(tmp_path, "model.safetensors", None)
    torch.save({}, folder / "pytorch_model.bin")
    assert divprune("run", "--model", folder).exit_code == 2


def test_family_without_video(divprune: Command, llava: Path, clip: Path) -> None:
    outcome = divprune("run", "--model", llava, "--video", clip)
    assert outcome.exit_code == 2
    assert "takes no video; these families do: llava_next_video" in outcome.error


def test_placeholder_in_the_prompt(divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("run", "--model", llava, "--image", picture, "--prompt", "What is <image> ?")
    assert outcome.exit_code == 2
    assert "contains '<image>'" in outcome.error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore"), MemoryError()]
)
def test_out_of_memory(
    divprune: Command, llava: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("divprune.demo.answering.answer", fail)
    outcome = divprune("run", "--model", llava, "--image", picture)
    assert outcome.exit_code == 2
    assert outcome.error.startswith("out of memory; try ")


def test_defect_is_one_line_with_exit_code_one(
    divprune: Command, llava: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divprune.demo.answering.answer", lambda *arguments, **options: 1 / 0)
    outcome = divprune("run", "--model", llava, "--image", picture)
    assert outcome.exit_code == 1
    assert outcome.error == "ZeroDivisionError: division by zero (--debug shows the traceback)"


def test_debug_lets_the_exception_through(divprune: Command) -> None:
    outcome = divprune("run", "--image", "nowhere.png", "--debug")
    assert outcome.exit_code == 1
    assert "error:" not in outcome.stderr


def test_torchvision_that_does_not_fit_is_explained() -> None:
    inner = RuntimeError("operator torchvision::nms does not exist")
    with pytest.raises(typer.Exit) as caught, one_line_errors(debug=False):
        raise ImportError("Could not import module 'PreTrainedModel'") from inner
    assert caught.value.exit_code == 2


def test_a_method_that_cannot_choose_from_an_image_is_no_fault_of_ours(divprune: Command) -> None:
    outcome = divprune("run", "--method", "evs")
    assert outcome.exit_code == 2
    assert "method 'evs' compares the frames of a video, got an item of modality 'image'" in outcome.stderr
