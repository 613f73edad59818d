"""`divprune eval` and `divprune reproduce` from the command line, with the real harness, on data made by the tests."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from divprune.cli.main import app
from divprune.lmms_eval_plugin.models.pruned import HarnessModel
from tests.harness.data_schemas import MADE


@pytest.fixture
def shared(data: Path, tmp_path: Path) -> tuple[Any, ...]:
    choices = ("--model", "embedded", "--data", data, "--output", tmp_path, "--limit", 2)
    return (*choices, "--batch-size", 2, "--cider-tokenizer", "python", "--json")


def rows_of(*arguments: object) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout.splitlines()[-1])["rows"]
    return rows


def test_data_sets_are_evaluated_and_not_asked_again(
    shared: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("eval", "--suite", "pope coco2017", "--methods", "divprune norm", "--keep-ratios", "0.098 0.05", *shared)
    rows = rows_of(*command)
    settings = {(row["row"], row["column"]) for row in rows}
    assert len(settings) == len(rows) == 2 * 5
    assert all(row["value"] is not None for row in rows)
    monkeypatch.setattr(HarnessModel, "generate_until", None)
    assert rows_of(*command) == rows
    assert len(list(tmp_path.glob("*.samples.jsonl"))) == len(rows)


@pytest.mark.parametrize(
    ("preset", "tasks", "others"),
    [
        ("table1", ("pope", "coco2017"), {"random", "VTW", "FastV at 25 tokens", "DivPrune", "PruMerge", "DivPrune*"}),
        ("table2", ("seedbench_video", "nextqa"), {"random", "VTW", "DivPrune"}),
        ("table3", ("scienceqa",), {"random", "layer 0"}),
        ("ablations", ("mmbench",), {"random"}),
        ("figure1", ("okvqa",), {"random", "DivPrune"}),
    ],
)
def test_presets_run_on_the_embedded_model(
    preset: str, tasks: tuple[str, ...], others: set[str], shared: tuple[Any, ...], tmp_path: Path
) -> None:
    assert set(tasks) <= set(MADE)
    rows = rows_of("reproduce", preset, "--tasks", " ".join(tasks), *shared)
    for task in tasks:
        found = {row["row"]: row for row in rows if row["column"] == task}
        assert found["Original"]["value"] is not None
        done = {name.partition(",")[0] for name, row in found.items() if row["value"] is not None}
        assert done >= others | {"Original"}
        refused = [row["missing"] for row in found.values() if row["value"] is None]
        assert all("the FLOP target must lie between" in reason for reason in refused), refused
    assert (tmp_path / f"{preset}-embedded.md").is_file()
