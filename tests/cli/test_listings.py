"""`divprune methods`, `divprune families`, `--version` and `--help`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version
from typer.main import get_command

import divprune as package
from divprune.budget import DEFAULT_KEEP_RATIO
from divprune.cli.main import app
from divprune.evaluation.scenes import SceneOptions
from divprune.huggingface import supported_families
from divprune.huggingface.families.support import load_support
from divprune.methods import available_methods, method_names
from divprune.serving.served_methods import architectures_served, found_served
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
    assert "served\tno" in divprune("methods", "fastv").stdout


def test_what_is_recorded_as_served_is_what_is_found() -> None:
    for name in method_names():
        assert architectures_served(name) == found_served(name)


def test_families_as_table_and_json(divprune: Command) -> None:
    families = load_support().families
    outcome = divprune("families", "--json")
    rows = outcome.json["rows"]
    assert [row["name"] for row in rows] == [family.name for family in families]
    assert {row["model_type"] for row in rows} == {family.name for family in supported_families()}
    assert rows[0]["cells"]["greedy"] == {"outcome": "ok", "reason": ""}
    assert "refused" not in outcome.json
    assert len(outcome.stdout.splitlines()) == 1
    lines = divprune("families").stdout.splitlines()
    assert len(lines) == 1 + len(families)
    assert "qwen2_5_vl\timage+video\tQwen/Qwen2.5-VL-7B-Instruct" in lines
    shown = divprune("families", "--modes").stdout
    for name in ("llava", "qwen2_vl", "Second turn", "refused"):
        assert name in shown


def test_positions_are_those_of_the_registry() -> None:
    defaults = {family.name: family.positions for family in supported_families()}
    assert {family.model_type: family.positions for family in load_support().families} == defaults


def test_families_are_filtered_by_a_word(divprune: Command) -> None:
    rows = divprune("families", "QWEN", "--json").json["rows"]
    assert {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"} <= {row["name"] for row in rows}
    assert all("qwen" in (row["name"] + row["example"]).lower() for row in rows)
    # A whole name is one family, though others hold it; of one the ways of calling are shown.
    shown = divprune("families", "qwen2_5_vl").stdout
    assert "Decoding: greedy\tok" in shown
    assert [row["name"] for row in divprune("families", "llava", "--json").json["rows"]] == ["llava"]
    outcome = divprune("families", "qwen2_5_vk")
    assert outcome.exit_code == 2
    assert "did you mean 'qwen2_5_vl'?" in outcome.error


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "call", [("methods",), ("families",), ("families", "--modes"), ("methods", "visionzip"), ("flops",)]
)
def test_on_a_terminal_tables_fit_eighty_columns(divprune: Command, call: tuple[str, ...]) -> None:
    shown = divprune(*call).stdout
    assert "\t" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    if call == ("methods",):
        assert {line.split()[0] for line in shown.splitlines() if line.strip()} >= set(method_names())


def test_for_other_programs_a_row_is_a_line_and_nothing_is_cut_off(divprune: Command) -> None:
    lines = divprune("methods").stdout.splitlines()
    infos = available_methods()
    assert len(lines) == 1 + len(infos)
    assert {len(line.split("\t")) for line in lines} == {5}
    assert [line.split("\t")[::4] for line in lines[1:]] == [[info.name, info.summary] for info in infos]


def test_one_method_is_shown_in_full(divprune: Command) -> None:
    outcome = divprune("methods", "visionzip", "--json").json
    assert outcome["meanings"].keys() == outcome["parameters"].keys() == {"contextual_share", "keeps_cls_token"}
    shown = divprune("methods", "visionzip").stdout
    for text in (
        "needs\tpatch features, vision attention, vision keys (vision layer -2)", "fidelity\tdocumented: ",
        "contextual_share\t0.15625\tFraction of contextual tokens", "https://arxiv.org/abs/2412.04467", "Deviation: ",
    ):  # fmt: skip
        assert text in shown
    assert divprune("methods", "visionzip", "--bibtex").stdout.count("@") == 1
    wrong = divprune("methods", "visionzop")
    assert wrong.exit_code == 2
    assert "did you mean 'visionzip'?" in wrong.error


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


LIGHT = (
    ("--help",), ("run", "--help"), ("tune", "--help"), ("methods",), ("methods", "--json"), ("methods", "visionzip"),
    ("methods", "--bibtex"), ("families",), ("families", "qwen", "--modes"), ("flops",),
    ("flops", "--method", "fastv:layer=3", "--accounting", "exact"), ("figures", "--help"),
    ("--show-completion", "bash"),
)  # fmt: skip


@pytest.mark.parametrize("call", LIGHT, ids=" ".join)
def test_looking_things_up_imports_nothing_heavy(call: tuple[str, ...]) -> None:
    assert heavy_imports(call) == []


def test_figures_are_drawn_without_torch(records: Path, tmp_path: Path) -> None:
    call = ("figures", "--results", str(records), "--output", str(tmp_path), "--only", "selection-time")
    assert {"torch", "transformers"} & set(heavy_imports(call)) == set()


def heavy_imports(call: tuple[str, ...]) -> list[str]:
    """What a command imports in a process of its own, of what takes long."""
    code = (
        "import sys; from divprune.cli.main import app\n"
        f"try: app({list(call)!r}, prog_name='divprune')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = ('torch', 'transformers', 'jinja2', 'PIL', 'numpy', 'matplotlib')\n"
        "print(*[name for name in heavy if name in sys.modules], sep=' ', file=sys.stderr)"
    )
    # Otherwise the shell is the one that started the tests, and none where that is unknown.
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stderr.splitlines()[-1].split()


def test_every_command_shows_an_example_that_it_understands(divprune: Command) -> None:
    commands: Any = get_command(app)
    for name, command in commands.commands.items():
        for part in getattr(command, "commands", {name: command}).values():
            lines = [line.split() for line in (part.epilog or "").splitlines() if line.startswith("  divprune")]
            assert lines, name
            known = {flag for parameter in part.params for flag in (*parameter.opts, *parameter.secondary_opts)}
            for words in lines:
                own = words[: words.index("--")] if "--" in words else words
                assert name in own
                assert {word for word in own if word.startswith("--")} <= known


def test_flags_are_shown_without_a_type_and_by_what_they_change(divprune: Command) -> None:
    shown = divprune("run", "--help").stdout
    assert "bool" not in shown.lower()
    assert "--no-compare" in shown
    assert "--compare" not in shown
    for panel in ("Model and input", "Pruning", "Running", "Output"):
        assert panel in shown


def test_shells_complete_commands_and_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(*words: str) -> list[str]:
        line = {"COMP_WORDS": " ".join(("divprune", *words)), "COMP_CWORD": str(len(words))}
        environment = os.environ | line | {"_DIVPRUNE_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-m", "divprune"], capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout.split()

    assert completed("run", "--method", "vis") == completed("methods", "vis") == ["visionzip", "vispruner"]
    assert "families" in completed("fa")


def test_papers_of_the_methods_come_as_bibtex(divprune: Command) -> None:
    outcome = divprune("methods", "--bibtex").stdout
    assert outcome.startswith("@inproceedings{alvar2025divprune,\n  title = {{DivPrune: Diversity-based")
    assert outcome.count("alvar2025divprune") == 1
    assert divprune("methods", "--bibtex", "--json").json["bibtex"] == outcome.rstrip("\n")


def test_methods_tell_what_they_need_and_where_they_come_from(divprune: Command) -> None:
    rows = {row["name"]: row for row in divprune("methods", "--json").json["rows"]}
    assert rows["visionzip"] | {"summary": "", "parameters": {}, "meanings": {}, "served": {}} == {
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
        "meanings": {},
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
    assert table.count("\texact\t") == sum(row["fidelity"] == "exact" for row in rows.values())


@pytest.mark.parametrize(("call", "policy"), [("flops", "PASSIVE"), ("serve x --dry-run", None)])
def test_threads_that_wait_sleep_but_in_servers(call: str, policy: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = (
        "import os; from divprune.cli.main import app\n"
        f"try: app({call.split()!r}, prog_name='divprune')\n"
        "except SystemExit: pass\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == str(policy)
