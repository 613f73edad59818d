"""What the page offers to copy keeps the very tokens that it shows."""

import json
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from divprune.checkpoints import LoadedModel
from divprune.cli.main import app
from divprune.embedded.examples import Example
from divprune.errors import DivpruneError
from divprune.huggingface import prune
from divprune.prompting import build_inputs
from divprune.vllm_plugin import PruningSettings
from divprune.web_demo.options import ModelOptions
from divprune.web_demo.session import Session
from divprune.web_demo.shared_model import SharedModel
from divprune.web_demo.snippets import of_file, of_scene, python_code, server_command
from divprune.web_demo.uploads import read_upload

OPTIONS = ModelOptions(max_new_tokens=8, device="cpu")
SETTINGS = [("divprune", 0.098), ("random:seed=3", 0.25), ("uniform", 0.002), ("visionzip", 0.3)]


@pytest.mark.parametrize(("method", "keep_ratio"), SETTINGS)
def test_python_keeps_the_same_tokens(
    method: str, keep_ratio: float, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (shown,) = session.answers((method,), keep_ratio, measure=False)
    program = tmp_path / "copied.py"
    program.write_text(python_code(OPTIONS, of_scene(0), session.example.prompt, method, keep_ratio), encoding="utf-8")
    capsys.readouterr()
    runpy.run_path(str(program))
    answer, report, indices = capsys.readouterr().out.splitlines()
    assert json.loads(indices) == list(shown.kept_indices[0])
    assert answer == shown.text
    assert report.startswith(f"{shown.num_kept} of 256 tokens")


def test_python_reads_the_uploaded_file_by_its_name(
    shared: SharedModel,
    photograph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompt = """What "is" this?\n'''{x}"""
    medium = read_upload(photograph, 8)
    _, (shown,) = Session(shared, Example((medium,), prompt)).answers(("divprune",), 0.1, measure=False)
    monkeypatch.chdir(photograph.parent)
    Path("copied.py").write_text(python_code(OPTIONS, of_file(medium, 8), prompt, "divprune", 0.1), encoding="utf-8")
    capsys.readouterr()
    runpy.run_path("copied.py")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == list(shown.kept_indices[0])


@pytest.mark.parametrize(("method", "keep_ratio"), SETTINGS)
def test_the_server_command_keeps_the_same_tokens(
    method: str, keep_ratio: float, session: Session, loaded: LoadedModel
) -> None:
    """What a server would be started with, applied as its workers apply it."""
    _, (shown,) = session.answers((method,), keep_ratio, measure=False)
    words = shlex.split(server_command(OPTIONS, loaded.model.config, "image", method, keep_ratio))
    assert words[:2] == ["divprune", "serve"]
    planned = CliRunner().invoke(app, [*words[1:], "--dry-run", "--json"])
    assert planned.exit_code == 0, planned.output
    command = json.loads(planned.stdout.splitlines()[-1])["command"]
    overrides = json.loads(command[command.index("--hf-overrides") + 1])
    settings = PruningSettings.of(SimpleNamespace(divprune=overrides["divprune"]))
    inputs = build_inputs(loaded, session.example.media, session.example.prompt)
    with prune(loaded.model, settings.method_object(), keep_ratio=settings.budget.keep_ratio) as pruning:
        loaded.model.generate(**inputs, max_new_tokens=1)
    assert pruning.last is not None
    assert pruning.last.items[0].kept_indices.tolist() == list(shown.kept_indices[0])


@pytest.mark.parametrize(
    ("method", "kind", "reason"),
    [
        ("fastv", "image", "acts inside the LLM"),
        ("mmtok", "image", "reads the question"),
        ("divprune", "video", "not served pruned with videos"),
    ],
)
def test_what_cannot_be_served_says_why(method: str, kind: str, reason: str, loaded: LoadedModel) -> None:
    with pytest.raises(DivpruneError, match=reason):
        server_command(OPTIONS, loaded.model.config, kind, method, 0.1)  # type: ignore[arg-type]
