"""`divprune reproduce` plans every table, runs it through the adapter, and ends beside the paper's numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from divprune.efficiency import subject as efficiency_subject
from divprune.evaluation.datasets import data_set
from divprune.evaluation.runs import EvaluationRun
from divprune.experiments import harness
from divprune.experiments import run as paper_run
from divprune.experiments.paper.presets import PRESET_NAMES
from divprune.records import Record
from tests.support.commands import Command


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_plan_is_printed(divprune: Command, name: str) -> None:
    outcome = divprune("reproduce", name, "--dry-run", "--json", "--gpus", 8)
    assert outcome.exit_code == 0, outcome.stderr
    total = outcome.json["total"]
    runs = [run for table in outcome.json["tables"] for run in table["runs"]]
    assert total["num_runs"] == len(runs) > 0
    assert total["gpu_hours"] == pytest.approx(8 * total["wall_hours"]) == sum(run["gpu_hours"] for run in runs)
    assert {"unpruned", "random"} <= {run["method"] for run in runs}


def test_all_plans_count_shared_cells_once(divprune: Command) -> None:
    outcome = divprune("reproduce", "all", "--dry-run", "--json")
    names = [run["name"] for table in outcome.json["tables"] for run in table["runs"]]
    assert len(names) == len(set(names))
    assert len(outcome.json["tables"]) == 11


def test_the_plan_says_what_is_needed_and_why_rows_are_left_out(divprune: Command) -> None:
    outcome = divprune("reproduce", "table1", "--dry-run", "--gpu-tflops", 125)
    text = " ".join(outcome.stdout.split())
    for words in (
        "java",
        "31,783",
        "M3, PruMerge-LoRA: needs weights",
        "divprune calibrate fitprune --model",
        "125 TFLOP",
    ):
        assert words in text
    judged = divprune("reproduce", "table2", "--dry-run")
    assert "50,994 judge calls" in " ".join(judged.stdout.split())


def test_another_model_is_planned_from_its_config(divprune: Command, llava: Path) -> None:
    outcome = divprune("reproduce", "table3", "--dry-run", "--model", llava, "--tasks", "pope", "--limit", 5, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    runs = outcome.json["tables"][0]["runs"]
    assert {(run["task"], run["num_samples"]) for run in runs} == {("divprune_paper_pope", 5)}


def test_a_local_copy_of_a_papers_model_keeps_its_printed_numbers(divprune: Command) -> None:
    outcome = divprune("reproduce", "table1", "--dry-run", "--model", "models/llava-1.5-7b-hf", "--json")
    assert outcome.json["tables"][0]["model"] == "LLaVA-1.5-7B"
    assert outcome.json["tables"][0]["runs"][0]["model"] == "llava-1.5-7b-hf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tabel1",), "did you mean 'table1'"),
        (("table1", "--tasks", "popes"), "did you mean 'pope'"),
        (("table1", "--methods", "divprun"), "did you mean 'divprune'"),
        (("table1", "--keep-ratios", "0.1 x"), "--keep-ratios must be numbers"),
        (("table1", "--keep-ratios", "1.5"), "keep_ratio must be in (0, 1], got 1.5"),
        (("table1", "--gpu-tflops", "0"), "gpu_tflops must be above 0"),
        (("table1", "--model", "no/such/model"), "--model no/such/model: it is none of embedded"),
    ],
)
def test_mistakes_are_told_in_one_line(divprune: Command, arguments: tuple[str, ...], message: str) -> None:
    outcome = divprune("reproduce", *arguments, "--dry-run")
    assert outcome.exit_code == 2
    assert message in outcome.error


def answered(runs: list[EvaluationRun], options: Any, progress: Any) -> None:
    """In place of the harness: the unpruned model has 6 of 8 right, every other one 4."""
    for run in runs:
        source, count = data_set(run.task), 6 if run.method == "unpruned" else 4
        marks = [{"doc_id": n, "said": "", "score": float(n < count)} for n in range(8)]
        config = run.as_config() | {"metric": source.metric, "statistic": "mean", "num_samples": 8}
        row = {"metric": source.metric, "value": count / 8, "stderr": None, "num_samples": 8}
        Record(run.name, config, [row], {}).save(options.output)
        (options.output / f"{run.name}.samples.jsonl").write_text("\n".join(map(json.dumps, marks)))


def test_a_run_on_the_embedded_model_ends_in_the_table(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", answered)
    arguments = (
        "table1",
        "--model",
        "embedded",
        "--tasks",
        "gqa scienceqa",
        "--limit",
        8,
        "--output",
        tmp_path,
        "--json",
    )
    outcome = divprune("reproduce", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 1
    rows = {(row["row"], row["column"]): row for row in outcome.json["rows"]}
    assert rows["DivPrune", "gqa"]["value"] == 50
    assert rows["DivPrune", "gqa"]["unpruned_difference"] == -25
    assert rows["FastV", "gqa"]["missing"].startswith("not run: the FLOP target")
    assert "the FLOP target must lie between" in rows["FitPrune", "gqa"]["missing"]
    assert (tmp_path / "table1-embedded.md").read_text().startswith("# Table 1")


def test_a_recipe_is_made_on_the_spot(divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", answered)
    arguments = ("table1", "--methods", "fitprune", "--keep-ratios", "0.5", "--tasks", "gqa", "--output", tmp_path)
    outcome = divprune("reproduce", *arguments, "--model", "embedded", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) == 1
    rows = {row["row"]: row for row in outcome.json["rows"]}
    assert rows["FitPrune"]["value"] == 50
    assert [path.name for path in tmp_path.glob("fitprune-embedded-*-percent.json")]


def test_one_of_several_processes_does_what_cannot_be_shared(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", answered)
    monkeypatch.setenv("WORLD_SIZE", "2")
    shared = ("--model", "embedded", "--output", tmp_path, "--json")
    recipe = ("table1", "--methods", "fitprune", "--keep-ratios", "0.5", "--tasks", "gqa")
    outcome = divprune("reproduce", *recipe, *shared)
    (row,) = [row for row in outcome.json["rows"] if row["row"] == "FitPrune"]
    assert "which a single process makes: divprune calibrate fitprune --model embedded" in row["missing"]
    monkeypatch.setenv("RANK", "1")
    before = sorted(tmp_path.iterdir())
    for arguments in (recipe, ("figure3", "--limit", 2)):
        second = divprune("reproduce", *arguments, *shared)
        assert (second.exit_code, second.stdout) == (0, "")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_time_and_memory_of_table_2(divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", answered)
    # In this process, which has a torchvision that can be imported.
    monkeypatch.setattr(efficiency_subject, "in_own_process", lambda function, *arguments: function(*arguments))
    arguments = (
        "table2",
        "--model",
        "embedded",
        "--tasks",
        "gqa",
        "--methods",
        "divprune",
        "--output",
        tmp_path,
        "--json",
    )
    outcome = divprune("reproduce", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    rows = {(row["row"], row["column"]): row for row in outcome.json["rows"]}
    assert 0 < rows["DivPrune", "prefill"]["value"] < rows["Original", "end_to_end"]["value"]
    assert rows["Original", "gpu_memory"]["value"] > 0.1
    again = divprune("reproduce", *arguments)
    assert again.json["rows"] == outcome.json["rows"]
    measured = []
    monkeypatch.setattr(efficiency_subject, "run_bench", lambda *_, **__: measured.append(1) or [])
    anew = divprune("reproduce", *arguments, "--no-resume")
    assert anew.exit_code != 0
    assert measured == [1], "--no-resume measures again"


@pytest.mark.slow
def test_figures_of_pictures_and_of_scores(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", answered)
    # tests/figures lay tokens out by t-SNE itself, which takes seconds a figure.
    monkeypatch.setattr("divprune.figures.tokens_tsne.embedded", lambda visual_tokens: visual_tokens[:, :2])
    shared = ("--model", "embedded", "--output", tmp_path, "--json")
    scenes = divprune("reproduce", "figure3", "--methods", "divprune vtw", "--limit", 2, *shared)
    assert scenes.exit_code == 0, scenes.stderr
    names = {Path(file).name for file in scenes.json["files"]}
    assert {"figure3-embedded-tsne.png", "figure3-embedded-max-min.svg"} <= names
    rows = {row["row"]: row for row in scenes.json["rows"]}
    assert rows["DivPrune"]["value"] > rows["random"]["value"]
    assert "fewer than two tokens" in rows["VTW"]["missing"]
    own = tmp_path / "own"
    own.mkdir()
    (own / "picture.png").write_bytes(picture.read_bytes())
    figure5 = ("reproduce", "figure5", "--images", own, "--methods", "divprune", *shared)
    checksums = []
    for change in (None, None, "red"):
        if change:
            Image.new("RGB", (64, 64), change).save(own / "picture.png")
        given = divprune(*figure5)
        assert given.exit_code == 0, given.stderr
        record = json.loads((tmp_path / "figure5-embedded.json").read_text())
        checksums.append(record["config"]["pictures"])
    assert checksums[0] == checksums[1] != checksums[2]
    scores = divprune("reproduce", "figure1", "--methods", "divprune", "--keep-ratios", "0.098 0.5", *shared)
    assert scores.exit_code == 0, scores.stderr
    assert {Path(file).name for file in scores.json["files"]} == {"figure1-embedded.png", "figure1-embedded.svg"}


def test_pictures_are_looked_for_before_anything_is_run(
    divprune: Command, llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_run, "run_in_harness", None)
    shared = ("reproduce", "figure3", "--model", llava, "--output", tmp_path / "new")
    assert "--images FOLDER is needed" in divprune(*shared).error
    assert "is not there" in divprune(*shared, "--images", tmp_path / "nowhere").error
    assert not (tmp_path / "new").exists()


def test_figures_of_another_model_are_drawn_from_pictures(
    divprune: Command, llava: Path, picture: Path, tmp_path: Path
) -> None:
    shared = ("--model", llava, "--images", picture.parent, "--output", tmp_path, "--json")
    outcome = divprune("reproduce", "figure3", "--methods", "divprune norm", "--keep-ratios", "0.5", *shared)
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.json["files"]) == 4
    record = json.loads((tmp_path / "figure3-llava.json").read_text())
    assert record["config"]["num_pictures"] == 1
    assert len(next(row for row in record["rows"] if row["case"] == "sample")["token_colors"]) == 16


def test_pictures_are_asked_for_where_toy_scenes_do_not_fit(divprune: Command, llava: Path, tmp_path: Path) -> None:
    outcome = divprune("reproduce", "figure3", "--model", llava, "--output", tmp_path)
    assert outcome.exit_code == 2
    assert "--images FOLDER is needed" in outcome.error


def test_without_the_harness_the_plan_still_works(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(harness, "import_module", missing)
    outcome = divprune("reproduce", "table3", "--model", "embedded", "--output", tmp_path)
    assert outcome.exit_code == 2
    assert 'running data sets needs lmms-eval: pip install "divprune[eval]"' in outcome.error
