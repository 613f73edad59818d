"""`divprune eval` on data sets: which runs it asks for, what it refuses, and the table in which it ends."""

from pathlib import Path

import pytest

from divprune.experiments import harness as harness_module
from tests.support.commands import Command
from tests.support.harness_stand_in import Harness

EMBEDDED = ("--model", "embedded", "--json")


def test_the_table_ends_beside_the_paper(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    arguments = ("--suite", "gqa my_task", "--model", "models/llava-1.5-7b-hf", "--output", tmp_path)
    arguments += ("--positions", "compact")
    outcome = divprune("eval", *arguments, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert "note: all done" in outcome.stderr
    rows = {(row["column"], row["method"]): row for row in outcome.json["rows"]}
    assert len(rows) == len(harness.runs) == 6
    assert {run.method: run.positions for run in harness.runs} == {
        "unpruned": None,
        "divprune": "compact",
        "random": "compact",
    }
    ours = rows["gqa", "divprune"]
    assert (ours["task"], ours["keep_ratio"], ours["num_kept_mean"]) == ("divprune_paper_gqa", 0.098, 26)
    assert (ours["value"], ours["printed"], ours["unpruned_difference"]) == (62.5, 56.85, -12.5)
    assert ours["difference"] == pytest.approx(62.5 - 56.85)
    assert ours["value_low"] < 62.5 < ours["value_high"]
    assert ours["share_kept"] == pytest.approx(5 / 6)
    assert rows["gqa", "unpruned"]["printed"] == 61.96
    assert rows["gqa", "random"]["printed"] is None
    assert rows["my_task", "random"]["value"] == 0.5
    assert rows["my_task", "random"]["metric"] == "exact_match"
    assert {method: rows["gqa", method]["fidelity"] for method in ("unpruned", "divprune", "random")} == {
        "unpruned": None, "divprune": "exact", "random": None
    }  # fmt: skip
    assert outcome.json["shares_kept"]["divprune 0.098"]["share_kept"] == pytest.approx(5 / 6)
    shown = divprune("eval", *arguments).stdout
    for words in (
        "Scores: gqa exact_match in %, my_task exact_match.",
        "56.85",
        "+5.6",
        "all data sets",
        "only 8 samples",
    ):
        assert words in " ".join(shown.split())


def test_original_positions_do_not_stand_beside_the_paper(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    arguments = ("--suite", "gqa", "--model", "models/llava-1.5-7b-hf", "--methods", "divprune fastv:layer=2")
    rows = {row["method"]: row for row in divprune("eval", *arguments, "--output", tmp_path, "--json").json["rows"]}
    assert {run.positions for run in harness.runs} == {None}
    assert rows["divprune"]["printed"] is None
    assert rows["unpruned"]["printed"] == 61.96
    divprune("eval", *arguments, "--output", tmp_path, "--positions", "compact")
    assert {run.method: run.positions for run in harness.runs}["fastv:layer=2"] is None


def test_other_models_have_no_columns_of_the_paper(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    arguments = ("--suite", "gqa", "--model", "embedded", "--methods", "divprune vtw:layer=2", "--output", tmp_path)
    shown = " ".join(divprune("eval", *arguments).stdout.split())
    assert "paper diff." not in shown
    assert "not run: no such layer: vtw:layer=2" in shown


def test_cells_that_are_asked_for(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    shared = (*EMBEDDED, "--output", tmp_path)
    outcome = divprune("eval", "--suite", "paper-video lmms:gqa", "--keep-ratios", "0.1 0.05", *shared)
    assert outcome.exit_code == 0, outcome.stderr
    assert len(harness.runs) == 6 * (1 + 2 * 2)
    assert [run.task for run in harness.runs[-5:]] == ["gqa"] * 5
    assert {row["column"] for row in outcome.json["rows"]} >= {"activitynet", "activitynet_score", "lmms:gqa"}
    divprune("eval", "--suite", "gqa", "--keep-ratio", 0.1, "--keep-ratio", 0.5, "--methods", "norm prumerge", *shared)
    asked = [(run.method, run.keep_ratio) for run in harness.runs]
    # PruMerge finds a number of its own.
    assert asked == [
        ("unpruned", None),
        ("norm", 0.1),
        ("norm", 0.5),
        ("prumerge", None),
        ("prumerge", 0.1),
        ("prumerge", 0.5),
    ]


def test_shares_at_equal_flops(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    wanted = ("--suite", "gqa", "--methods", "divprune divprune:layer=1 fastv:layer=3", "--equal", "both")
    outcome = divprune("eval", *wanted, "--model", "llava-1.5-7b", "--output", tmp_path, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert {run.model for run in harness.runs} == {"llava-hf/llava-1.5-7b-hf"}
    # Table 3 of the paper: 39 tokens at layer 1 cost what 56 cost before the model. FastV at layer 3 keeps one.
    shares = [(run.method, round(576 * (run.keep_ratio or 1))) for run in harness.runs]
    assert shares == [
        ("unpruned", 576),
        ("divprune", 56),
        ("divprune:layer=1", 56),
        ("divprune:layer=1", 39),
        ("fastv:layer=3", 56),
        ("fastv:layer=3", 1),
    ]
    outcome = divprune(
        "eval", "--suite", "gqa", "--methods", "fastv", "--equal", "flops", "--output", tmp_path, *EMBEDDED
    )
    assert [run.method for run in harness.runs] == ["unpruned"]
    assert outcome.json["rows"][1]["refusal"].startswith("the FLOP target must lie between")
    assert outcome.json["rows"][1]["task"] == "divprune_paper_gqa"


def test_options_reach_the_harness(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    given = (
        "--limit",
        8,
        "--no-resume",
        "--batch-size",
        4,
        "--num-frames",
        16,
        "--dtype",
        "float32",
        "--device",
        "cpu",
    )
    places = ("--data", tmp_path, "--tasks-folder", tmp_path, "--cider-tokenizer", "python", "--output", tmp_path)
    outcome = divprune("eval", "--suite", "gqa", *given, *places, *EMBEDDED)
    assert outcome.exit_code == 0, outcome.stderr
    assert (
        vars(harness.options).items()
        >= {
            "output": tmp_path,
            "limit": 8,
            "resume": False,
            "debug": False,
            "batch_size": 4,
            "num_frames": 16,
            "dtype": "float32",
            "device": "cpu",
            "data": tmp_path,
            "include_paths": (tmp_path,),
            "tokenizer": "python",
        }.items()
    )


def test_a_server_answers_for_one_method(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    server = ("--suite", "gqa", "--backend", "openai-server", "--base-url", "http://127.0.0.1:8000/v1", "--json")
    shared = (*server, "--served-model", "toy", "--num-concurrent", 4, "--output", tmp_path)
    assert divprune("eval", *shared, "--methods", "unpruned").exit_code == 0
    outcome = divprune("eval", *shared, "--methods", "divprune", "--keep-ratios", 0.1)
    assert outcome.exit_code == 0, outcome.stderr
    assert [run.name for run in harness.runs] == ["toy--divprune_paper_gqa--divprune--0.1"]
    # The unpruned server was asked before.
    assert [row["unpruned_difference"] for row in outcome.json["rows"]] == [None, -12.5]
    # Of other documents it says nothing.
    path = tmp_path / "toy--divprune_paper_gqa--unpruned.json"
    path.write_text(path.read_text().replace('"num_samples": 8', '"num_samples": 4'))
    alone = divprune("eval", *shared, "--methods", "divprune", "--keep-ratios", 0.1)
    assert [row["unpruned_difference"] for row in alone.json["rows"]] == [None]


def test_reproduce_takes_the_same_options(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    table = ("reproduce", "table3", "--model", "embedded", "--tasks", "gqa", "--limit", 8, "--output", tmp_path)
    outcome = divprune(*table, "--batch-size", 4, "--cider-tokenizer", "python", "--data", tmp_path, "--no-resume")
    assert outcome.exit_code == 0, outcome.stderr
    seen = harness.options
    assert (seen.limit, seen.batch_size, seen.tokenizer, seen.data, seen.resume) == (8, 4, "python", tmp_path, False)
    assert (seen.device, seen.dtype) == ("auto", "auto")
    refused = divprune(*table, "--backend", "vllm", "--system-prompt", "Be brief.")
    assert "--system-prompt is for --backend hf, not for vllm" in refused.error


@pytest.mark.usefixtures("harness")
def test_only_the_first_process_shows_results(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    outcome = divprune("eval", "--suite", "gqa", "--output", tmp_path, *EMBEDDED)
    # rich 13.8 ends a hidden bar with empty lines.
    assert (outcome.exit_code, outcome.stdout, outcome.stderr.strip()) == (0, "", "")


SERVER = ("--suite", "gqa", "--model", "toy", "--backend", "openai-server")
REACHED = (*SERVER, "--base-url", "http://127.0.0.1:8000/v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "scenes", "--model", "llava"), "--suite scenes asks the model 'embedded'"),
        (("--suite", "scenes", "--batch-size", 2, "--data", "x"), "--batch-size, --data: not for --suite scenes"),
        (("--suite", "scenes gqa", *EMBEDDED), "cannot be combined"),
        (("--suite", " ", *EMBEDDED), "--suite is empty"),
        (("--suite", "gqa"), "--model is needed"),
        (("--suite", "gqa", "--methods", "divprun", *EMBEDDED), "did you mean 'divprune'"),
        (("--suite", "gqa", "--keep-ratios", "0.1 x", *EMBEDDED), "--keep-ratios must be numbers"),
        (("--suite", "gqa", "--keep-ratios", "0.1 2", *EMBEDDED), "keep_ratio must be in (0, 1], got 2"),
        (("--suite", "gqa", "--visual-tokens", 9, *EMBEDDED), "--visual-tokens is for --equal flops"),
        (("--suite", "gqa", "--base-url", "x", *EMBEDDED), "--base-url is for --backend openai-server, not for hf"),
        (("--suite", "gqa", "--backend", "vllm", "--device", "cpu", *EMBEDDED), "--device is for --backend hf"),
        (("--suite", "gqa", "--num-keep", "9 x", *EMBEDDED), "--num-keep must be whole numbers"),
        (("--suite", "gqa", "--num-keep", " ", *EMBEDDED), "--num-keep must be whole numbers"),
        (("--suite", "gqa", "--num-keep", "0", *EMBEDDED), "num_keep must be at least 1, got 0"),
        (("--suite", "gqa", "--num-keep", "9", "--keep-ratio", 0.1, *EMBEDDED), "give --keep-ratios or --num-keep"),
        (("--suite", "gqa", "--num-keep", "9", "--equal", "flops", *EMBEDDED), "--equal flops needs --keep-ratios"),
        (("--suite", "scenes", "--num-keep", "9", "--scope", "frame"), "--num-keep, --scope: not for --suite scenes"),
        (("--suite", "gqa", "--data", "no/such", *EMBEDDED), "--data no/such: there is no such folder"),
        (SERVER, "--backend openai-server needs --base-url"),
        (REACHED, "needs --methods and --keep-ratios with one method and one keep ratio"),
        ((*REACHED, "--methods", "divprune random", "--keep-ratios", 0.1), "got 2 and 1"),
        ((*REACHED, "--methods", "divprune", "--equal", "flops"), "--equal flops: not for --backend openai-server"),
        ((*REACHED, "--methods", "unpruned", "--keep-ratios", 0.1), "not for --methods unpruned"),
        (
            ("--suite", "gqa", "--model", "llava-1.6-7b", "--methods", "fastv", "--equal", "flops"),
            "--equal flops needs --visual-tokens",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    divprune: Command, harness: Harness, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    outcome = divprune("eval", *arguments, "--output", tmp_path / "new")
    assert outcome.exit_code == 2, outcome.stdout
    assert message in outcome.error
    assert not list(tmp_path.iterdir())


def test_without_lmms_eval_the_extra_is_named(
    divprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'lmms_eval'")

    monkeypatch.setattr(harness_module, "import_module", missing)
    outcome = divprune("eval", "--suite", "gqa", "--model", "embedded", "--output", tmp_path)
    assert outcome.exit_code == 2
    assert 'pip install "divprune[eval]"' in outcome.error


TILED = ("--suite", "gqa", "--model", "llava-1.6-7b", "--scope", "tile", "--newlines", "rows", "--json")


def test_tiles_share_published_counts(divprune: Command, harness: Harness, tmp_path: Path) -> None:
    """640, 320 and 160 tokens of five tiles; records of another scope have names of their own."""
    arguments = (*TILED, "--methods", "visionzip vtw:layer=3", "--num-keep", "128 64 32", "--output", tmp_path)
    outcome = divprune("eval", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    asked = [(run.method, run.num_keep, run.scope, run.newlines) for run in harness.runs]
    assert asked == [
        ("unpruned", None, "item", "budget"),
        *(("visionzip", count, "tile", "rows") for count in (128, 64, 32)),
        ("vtw:layer=3", None, "tile", "rows"),
    ]
    assert harness.runs[1].name.endswith("--visionzip--128-tokens-a-tile--scope=tile--newlines=rows")
    assert harness.runs[1].as_config()["scope"] == "tile"
    assert not {"scope", "newlines"} & harness.runs[0].as_config().keys()
    labels = [row["row"] for row in outcome.json["rows"]]
    assert labels[1] == "visionzip 128 tokens a tile scope=tile newlines=rows"


def test_a_method_that_does_not_fit_is_a_row_beside_those_that_do(
    divprune: Command, harness: Harness, tmp_path: Path
) -> None:
    methods = ("--methods", "divprune evs fastv:layer=99")
    outcome = divprune("eval", "--suite", "gqa my_task", *methods, *EMBEDDED, "--output", tmp_path)
    assert outcome.exit_code == 0, outcome.stderr
    rows = {(row["column"], row["method"]): row for row in outcome.json["rows"]}
    assert "got an item of modality 'image'" in rows["gqa", "evs"]["refusal"]
    assert "layer must be between 1 and 3" in rows["my_task", "fastv:layer=99"]["refusal"]
    # What a task of the user's shows is not known.
    assert [(run.task, run.method) for run in harness.runs] == [
        ("divprune_paper_gqa", "unpruned"), ("divprune_paper_gqa", "divprune"),
        ("my_task", "unpruned"), ("my_task", "divprune"), ("my_task", "evs"),
    ]  # fmt: skip
