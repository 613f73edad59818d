"""`divprune serve` and `divprune batch` where vLLM is missing or the arguments cannot work."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import Command

without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed: see tests/serving")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    return folder


@without_vllm
def test_serving_without_vllm_names_the_extra(divprune: Command) -> None:
    outcome = divprune("serve", "some/model")
    assert outcome.exit_code == 2
    assert "pip install 'divprune[vllm]'" in outcome.error


@without_vllm
def test_a_batch_without_vllm_names_the_extra(divprune: Command, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    outcome = divprune("batch", "some/model", "--input", pictures, "--prompt", "What?", "--output", output)
    assert outcome.exit_code == 2
    assert "pip install 'divprune[vllm]'" in outcome.error


@without_vllm
def test_a_dry_run_needs_no_vllm(divprune: Command, llava: Path) -> None:
    outcome = divprune("serve", llava, "--dry-run", "--json", "--grace", "7.5", "--", "--uds", "/run/s", "--port=9000")
    assert outcome.exit_code == 0
    assert outcome.json["address"] == "unix:/run/s"
    command = outcome.json["command"]
    assert command[2:7] == ["divprune.serving.watch", "7.5", command[0], "-m", "vllm.entrypoints.cli.main"]
    assert command[command.index("--shutdown-timeout") + 1] == "8"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-3:] == ["--uds", "/run/s", "--port=9000"]


@pytest.mark.parametrize("grace", ["inf", "86401"])
def test_a_grace_is_some_seconds(divprune: Command, grace: str) -> None:
    outcome = divprune("serve", "some/model", "--dry-run", "--grace", grace)
    assert outcome.exit_code == 2
    assert f"--grace must be between 0 and 86400 seconds, got {grace}" in outcome.error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--keep-ratio", "0"), "keep_ratio must be in (0, 1], got 0"),
        (("--keep-ratio", "nan"), "keep_ratio must be in (0, 1], got nan"),
        (("--num-keep", "0"), "num_keep must be"),
        (("--keep-ratio", "0.5", "--num-keep", "3"), "not both"),
    ],
)
def test_counts_out_of_range_are_refused_first(divprune: Command, arguments: tuple[str, ...], reason: str) -> None:
    outcome = divprune("serve", "some/model", *arguments)
    assert outcome.exit_code == 2
    assert reason in outcome.error


def test_a_batch_says_what_is_wrong_with_its_input(divprune: Command, tmp_path: Path) -> None:
    outcome = divprune("batch", "some/model", "--input", tmp_path / "missing", "--output", tmp_path / "answers.jsonl")
    assert outcome.exit_code == 2
    assert "no such folder or file" in outcome.error
    assert not (tmp_path / "answers.jsonl").exists()
