"""`divprune demo`: what it refuses, and the export; the page has tests of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from divprune.web_demo import server
from tests.support.commands import Command

QUICK = ("--methods", "random", "--keep-ratios", "0.05", "--prompt", "How many objects are there?")


def test_without_gradio_the_remedy_is_told(divprune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    outcome = divprune("demo")
    assert outcome.exit_code == 2
    assert 'pip install "divprune[demo]"' in outcome.error


def test_the_export_needs_no_gradio(tmp_path: Path) -> None:
    code = "import sys; sys.modules['gradio'] = None; from divprune.cli.main import app; app()"
    command = [sys.executable, "-c", code, "demo", "--export", "gallery", *QUICK, "--max-new-tokens", "2"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "8 answers about 4 scenes: gallery/index.html\n"
    assert (tmp_path / "gallery" / "index.html").is_file()


def test_an_export_as_json(divprune: Command, tmp_path: Path) -> None:
    found = divprune("demo", "--export", tmp_path / "gallery", *QUICK, "--max-new-tokens", "2", "--json").json
    assert found == {
        "folder": str(tmp_path / "gallery"),
        "model": "embedded",
        "methods": ["random"],
        "keep_ratios": [0.05],
        "num_scenes": 4,
        "num_answers": 8,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--export", "somewhere", "--port", "80"), "--port must be left out with --export"),
        (("--prompt", "What?"), "--prompt is for --export"),
        (("--methods", "divprune"), "--methods must be two for the page"),
        (("--keep-ratios", "0.1 0.2"), "--keep-ratios must be one for the page"),
        (("--keep-ratios", "0.0975"), "--keep-ratios must be in steps of 0.002 for the page"),
        (("--keep-ratios", "2"), "keep_ratio must be in (0, 1], got 2.0"),
        (("--port", "70000"), "--port must be between 1 and 65535"),
        (("--export", "."), "holds something else than an earlier export"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    arguments: tuple[str, ...], message: str, divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.txt").touch()
    outcome = divprune("demo", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_a_port_in_use_is_told_before_the_model_is_loaded(divprune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: object())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"--port {port} is in use; stop what listens there" in divprune("demo", "--port", port).error
