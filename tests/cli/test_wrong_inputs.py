"""Any option of any command, given anything: exit code 2 and one short line, or it is no mistake."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from divprune.cli.main import app
from divprune.errors import CheckpointError
from tests.support.commands import Command

ODD = ("", "x", "-1", "0", "nan", "98", "1" + 30 * "0", ".", "nowhere/x.json", "a,b:c=d")
LONG = ("\x1b[31mred\x07", "a" * 5000, "{[(<|>)]}")
QUICK: dict[str, tuple[str, ...]] = {
    "eval": ("--suite", "gqa", "--model", "embedded"),
    "reproduce": ("table1", "--dry-run"),
    "serve": ("some/model", "--dry-run"),
    "batch": ("some/model", "--input", "questions.jsonl", "--output", "answers.jsonl"),
    "figures": ("--results", "nowhere"),
    "calibrate vtw": ("--output", "vtw.json"),
    "calibrate fitprune": ("--output", "recipe.json", "--target-percent", "50"),
}
"""What a command cannot do without, so that the option under test is looked at."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))
    if not hasattr(group, "commands"):
        yield " ".join(path), group


OPTIONS = [
    (name, parameter.opts[-1])
    for name, command in commands(typer.main.get_command(app))
    for parameter in command.params
    if parameter.opts[-1].startswith("-") and not parameter.is_flag
]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_odd_values(
    divprune: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, option: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise CheckpointError("nothing was wrong until the model is loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("divprune.checkpoints.load_model", stop)
    monkeypatch.setattr("divprune.efficiency.subject.measure_variants", stop)
    monkeypatch.setattr("divprune.calibration.run.load_model", stop)
    (tmp_path / "questions.jsonl").write_text('{"id": 1, "image": "none.png", "prompt": "what?"}\n')
    for value in (*ODD, *LONG):
        outcome = divprune(*command.split(), *QUICK.get(command, ()), option, value)
        assert outcome.exit_code in (0, 2), (value[:50], outcome.stderr[-600:])
        assert "Traceback" not in outcome.stderr
        assert "\x1b" not in outcome.stderr
        # Values that have not even the type of the option end in typer's own message, beside the usage.
        if outcome.exit_code == 2 and not outcome.stderr.startswith("Usage:"):
            assert len(outcome.error) < 300, (value[:50], outcome.error)
