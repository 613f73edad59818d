"""docs/python.md: every command, and the Python below it that prints the same."""

import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.cli.main import app
from divprune.embedded.examples import bundled_scenes
from divprune.serving.answers import Answer
from divprune.serving.engine import EngineSettings
from divprune.serving.questions import BatchQuestion
from tests.support.commands import Command
from tests.support.harness_stand_in import Harness

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"```sh\n(divprune [^\n]+ --json[^\n]*)\n```\n```python\n(.+?)```", re.S)
PAIRS = BLOCK.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
MEASURED = re.compile(r"_seconds|_per_second$|^foreign_cores$|^busy_rounds$|^rounds_left_out$")
"""What no two runs agree on."""


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not MEASURED.search(key)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def answered(settings: EngineSettings, questions: Sequence[BatchQuestion]) -> Iterator[Answer]:
    for question in questions:
        yield Answer(question.id, question.prompt, (), str(settings), answer="red")


@pytest.fixture
def here(
    tmp_path: Path, llava: Path, records: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Two folders with what the examples read, in one of which each runs; engines and lmms-eval answer at once."""
    monkeypatch.setattr("divprune.serving.run.require_vllm", lambda: None)
    monkeypatch.setattr("divprune.serving.run.answers_here", answered)
    folders = tmp_path / "command", tmp_path / "python"
    for folder in folders:
        for name in ("models", "photos"):
            (folder / name).mkdir(parents=True)
        (folder / "models" / "llava").symlink_to(llava)
        shutil.copytree(records, folder / "records")
        bundled_scenes()[0].media[0].frames[0].save(folder / "photo.png")
        Image.new("RGB", (8, 8), "red").save(folder / "photos" / "red.png")
        with (folder / "questions.jsonl").open("w") as file:
            for number, example in enumerate(bundled_scenes()):
                example.media[0].frames[0].save(folder / f"{number}.png")
                file.write(json.dumps({"image": f"{number}.png", "prompt": example.prompt}) + "\n")
    return folders


@pytest.mark.parametrize(("command", "code"), PAIRS, ids=[command[9:40] for command, _ in PAIRS])
def test_python_prints_what_the_command_prints(
    command: str,
    code: str,
    here: tuple[Path, Path],
    divprune: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here[0])
    outcome = divprune(*shlex.split(command)[1:])
    assert outcome.exit_code == 0, outcome.stderr
    monkeypatch.chdir(here[1])
    Path("example.py").write_text(code, encoding="utf-8")
    capsys.readouterr()
    runpy.run_path("example.py")
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert without_times(printed) == without_times(outcome.json)


def test_every_command_has_an_example() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    names |= {str(group.typer_instance.info.name) for group in app.registered_groups if group.typer_instance}
    assert names == {command.split()[1] for command, _ in PAIRS}
