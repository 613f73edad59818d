"""`divprune methods`, `divprune families`, `--version` and `--help`."""

import subprocess
import sys
import time

import pytest
import transformers
from packaging.version import Version

import divprune as package
from divprune.budget import DEFAULT_KEEP_RATIO
from divprune.evaluation.scenes import SceneOptions
from divprune.huggingface import supported_families
from divprune.huggingface.families.support import load_support
from divprune.methods import available_methods
from tests.support.commands import Command


def test_methods_are_listed(divprune: Command) -> None:
    outcome = divprune("methods")
    assert outcome.exit_code == 0
    for name in ("divprune", "random"):
        assert name in outcome.stdout


def test_methods_as_json(divprune: Command) -> None:
    rows = divprune("methods", "--json").json["rows"]
    assert [row["name"] for row in rows] == [info.name for info in available_methods()]
    assert next(row for row in rows if row["name"] == "random")["parameters"] == {"seed": 0}


def test_methods_say_what_they_are_served_for(divprune: Command) -> None:
    served = {row["name"]: row["served"] for row in divprune("methods", "--json").json["rows"]}
    assert set(served["divprune"]) == {"image", "video"}
    assert "LlavaForConditionalGeneration" in served["visionzip"]["image"]
    assert served["evs"].keys() == {"video"}
    assert {name for name, kinds in served.items() if not kinds} >= {"fastv", "cdpruner", "fitprune", "pooling"}
    shown = " ".join(divprune("methods").stdout.split())
    assert "Not served." in shown


def test_families_as_table_and_json(divprune: Command) -> None:
    families = load_support().families
    outcome = divprune("families", "--json")
    rows = outcome.json["rows"]
    assert [row["name"] for row in rows] == [family.name for family in families]
    assert {row["model_type"] for row in rows} == {family.name for family in supported_families()}
    assert rows[0]["cells"]["greedy"] == {"outcome": "ok", "reason": ""}
    assert "refused" not in outcome.json
    assert len(outcome.stdout.splitlines()) == 1
    shown = divprune("families").stdout
    for name in ("llava", "qwen2_vl", "Second turn", "refused"):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_refused_classes_are_listed_with_their_reasons(divprune: Command) -> None:
    refused = {row["model_type"]: row["reason"] for row in divprune("families", "--refused", "--json").json["refused"]}
    assert "cross-attention" in refused["mllama"]
    # Some classes of older versions lack what makes their family's newer ones fit.
    if Version(transformers.__version__) >= Version("5.23"):
        assert not refused.keys() & {family.name for family in supported_families()}
    assert "MllamaForConditionalGeneration" in divprune("families", "--refused").stdout


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "divprune", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"divprune {package.__version__}\n"


def test_help_tells_the_defaults_that_hold(divprune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(divprune("eval", "--help").stdout.replace("│", " ").split())
    for suite in ("scenes", "scenes-video"):
        bench = SceneOptions(suite=suite).bench
        assert f"{suite}: {bench.num_shown}" in shown
        assert f"{suite}: {' '.join(f'{ratio:g}' for ratio in bench.keep_ratios)}" in shown
    for command in ("run", "bench", "serve", "batch"):
        assert f"[default: ({DEFAULT_KEEP_RATIO:g})]" in divprune(command, "--help").stdout


def test_version(divprune: Command) -> None:
    assert divprune("--version").stdout == f"divprune {package.__version__}\n"


def test_no_command_shows_help(divprune: Command) -> None:
    outcome = divprune()
    assert "run" in outcome.stdout + outcome.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from divprune.cli.main import app;"
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0;"
        "print([name for name in ('torch', 'transformers', 'jinja2', 'PIL') if name in sys.modules])"
    )
    started = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
    assert time.perf_counter() - started < 20  # a hang, not a speed test


def test_papers_of_the_methods_come_as_bibtex(divprune: Command) -> None:
    outcome = divprune("methods", "--bibtex").stdout
    assert outcome.startswith("@inproceedings{alvar2025divprune,\n  title = {{DivPrune: Diversity-based")
    assert outcome.count("alvar2025divprune") == 1
    assert divprune("methods", "--bibtex", "--json").json["bibtex"] == outcome.rstrip("\n")


def test_methods_tell_what_they_need_and_where_they_come_from(divprune: Command) -> None:
    rows = {row["name"]: row for row in divprune("methods", "--json").json["rows"]}
    assert rows["visionzip"] | {"summary": "", "parameters": {}, "served": {}} == {
        "name": "visionzip",
        "summary": "",
        "acts": "before the LLM",
        "fidelity": "documented",
        "count": "exact",
        "needs": ["patch_features", "vision_attention", "vision_keys"],
        "vision_layer": -2,
        "query_aware": False,
        "merges": True,
        "modalities": ["image", "video"],
        "parameters": {},
        "served": {},
        "year": 2025,
        "citation": "Yang, Chen, Tian, Wang, Li, Yu, Jia, CVPR 2025",
        "paper": "https://arxiv.org/abs/2412.04467",
    }
    assert {name for name, row in rows.items() if row["query_aware"]} >= {"fastv", "cdpruner", "mmtok", "eadp"}
    assert (rows["prumerge"]["count"], rows["pooling"]["count"], rows["vtw"]["count"]) == (
        "adaptive",
        "at_most",
        "schedule",
    )
    assert rows["random"]["year"] is rows["random"]["citation"] is None
    table = divprune("methods").stdout
    assert "Needs vision keys (vision layer -2)." in " ".join(table.split())
    assert table.count("Fidelity: exact.") == sum(row["fidelity"] == "exact" for row in rows.values())
    assert max(map(len, table.splitlines())) <= 80
