"""Our tasks under lmms-eval's own command, from the caches of Hugging Face, and what a wheel carries."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

import datasets
import yaml

from divprune.evaluation.datasets import DATA_SETS, TASK_PREFIX
from divprune.lmms_eval_plugin.data.local_data import TASKS, data_revision
from divprune.lmms_eval_plugin.runs import preflight
from tests.harness.data_making import table
from tests.harness.data_schemas import MADE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `load_dataset("lmms-lab-encoder/POPE")` leaves in its cache."""
    folder, made = tmp_path_factory.mktemp("hub"), MADE["pope"]
    table(made.documents, made.features).to_parquet(folder / "test.parquet")
    files = {"test": str(folder / "test.parquet")}
    read = datasets.load_dataset("parquet", data_files=files, cache_dir=str(folder / "parquet"))
    tables = folder / "tables"
    place = tables / "lmms-lab-encoder___pope" / "default" / "0.0.0" / COMMIT
    place.mkdir(parents=True)
    for file in Path(read["test"].cache_files[0]["filename"]).parent.iterdir():
        (place / file.name.replace("parquet-", "pope-")).write_bytes(file.read_bytes())
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"dataset_name": "pope"}))
    return tables


def test_lmms_evals_command_runs_our_tasks(cache: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "LMMS_EVAL_DATASETS_CACHE": str(cache), "HF_HOME": str(tmp_path)}
    arguments = ["--model", "dummy", "--model_args", "response=Yes", "--tasks", TASK_PREFIX + "pope"]
    arguments += ["--include_path", str(TASKS), "--output_path", str(tmp_path / "out"), "--timezone", "UTC"]
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    found = list((tmp_path / "out").rglob("*_results.json"))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(found[0].read_text())["results"][TASK_PREFIX + "pope"]
    assert results["pope_f1_score,none"] == pytest.approx(2 / 3)


def test_the_commit_of_a_cached_data_set_is_known(manager: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api import task as lmms_eval_task

    monkeypatch.setattr(manager, "local", None)
    monkeypatch.setattr(lmms_eval_task, "_resolve_hf_datasets_cache_dir", lambda: str(cache))
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(cache))
    assert preflight.check([TASK_PREFIX + "pope"], manager) == {}
    task = manager.load_task_or_group(TASK_PREFIX + "pope")[TASK_PREFIX + "pope"]
    expected = {"path": "lmms-lab-encoder/POPE", "name": None, "split": "test", "num_samples": 4}
    assert data_revision(task) == expected | {"revision": COMMIT}


def test_every_row_has_one_file_that_is_complete_in_itself() -> None:
    files = {path.stem: path.read_text(encoding="utf-8") for path in TASKS.glob("[!_]*.yaml")}
    assert set(files) == {row.key for row in DATA_SETS} | {"egoschema_subset"}
    for key, text in files.items():
        plain = yaml.safe_load(text.replace("!function ", ""))
        assert plain["task"] == TASK_PREFIX + key
        assert "include" not in plain
        assert plain["generation_kwargs"]["do_sample"] is False
        assert plain["generation_kwargs"]["max_new_tokens"] > 0
    for row in DATA_SETS:
        assert f"- metric: {row.metric}\n" in files[row.key]


def test_the_page_about_the_tasks_says_what_the_files_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "paper-tasks.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 7]
    rows = {line.split("`")[1]: line for line in lines}
    for row in DATA_SETS:
        said = rows[row.key]
        plain = yaml.safe_load((TASKS / f"{row.key}.yaml").read_text(encoding="utf-8").replace("!function ", ""))
        options = (plain.get("lmms_eval_specific_kwargs") or {}).get("default", {})
        assert plain["dataset_path"] in said or "the same" in said
        for name in ("post_prompt", "multiple_choice_prompt", "open_ended_prompt", "prompt"):
            assert options.get(name, "").replace("\n", "\\n").strip() in said or "the same" in said
        assert f"`{row.metric}`" in said
        assert f"`{row.todays_task}`" in said
        assert ("100 x" in said) == (row.scale == 100)
