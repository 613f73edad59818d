"""`benchmarks.gpu` without a GPU: its parts at toy sizes, and how they are run one after the other."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_models
from divprune.records import Record, load_record
from tools.gpu_tables import UNMEASURED, gpu_tables, selection_gpu_table

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_models_part_measures_the_rows_of_table_2(tmp_path, monkeypatch, is_compiled):
    # Memory is measured in a process a row.
    measure = gpu_models.measure_variants
    monkeypatch.setattr(
        gpu_models, "measure_variants", lambda *args, **more: measure(*args, **more | {"memory": False})
    )
    part = gpu_models.ModelPart("llava-next-video-7b", is_compiled=is_compiled, rehearses=True)
    record = load_record(part.measure(tmp_path))
    assert record.name == f"bench-llava-next-video-7b-cuda{'-compiled' if is_compiled else ''}"
    assert record.config["num_layers"] == 32
    assert record.config["static_cache"] == is_compiled
    methods = [row["method"].partition(":")[0] for row in record.rows]
    assert methods == ["unpruned", "random", "vtw", "fastv", "fastv", "divprune"]
    assert [row["num_kept"] for row in record.rows if row["method"] in ("random", "divprune")] == [115, 115]
    tables = gpu_tables(tmp_path)
    assert "llava-next-video-7b, 32 decoder layers, random weights" in tables
    # 0.161 of 0.330 s and 3.39 of 4.37 s in the paper's Table 2.
    assert re.search(r"\| `divprune` \| \d+\.\d\d \| 0\.49 \| \d+\.\d\d \| 0\.78 \|", tables)


def test_the_selections_part_compares_with_all_that_a_cpu_has(tmp_path):
    gpu.measure_selection(True, tmp_path)
    record = load_record(tmp_path / "selection-cuda.json")
    assert [row["case"] for row in record.rows].count("batch") == len({row["features"] for row in record.rows})
    for row in record.rows:
        assert row["num_same_picks"] == row["num_keep"] or row["tie_gap"] < 1e-6
        assert not row["has_kernel"]
        for name in ("paper", "select", "plain", "matrix_product", "compiled"):
            assert row[f"{name}_median_seconds"] > 0
    table = selection_gpu_table(Record(record.name, record.config, record.rows, record.provenance))
    assert "| 3 | 40 | 8 | gaussian |" in table
    assert "without the kernel" in table


def test_compiled_plain_torch_picks_the_same():
    tokens = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(0))
    from benchmarks.paper_procedure import paper_procedure
    from benchmarks.selection_gpu import compiled_plain

    expected = [paper_procedure(rows, 12).tolist() for rows in tokens]
    assert compiled_plain(tokens, 12)().tolist() == expected


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Run parts that are lines of Python, and return what the file of the state holds."""

    def run(minutes=5.0, wanted=(), identity="code and machine", **codes):
        known = [gpu.Part(name, 1, print, code if code == "not here" else None) for name, code in codes.items()]
        monkeypatch.setattr(gpu, "parts", lambda rehearses: known)
        monkeypatch.setattr(gpu, "identity", lambda rehearses: identity)
        code_of = lambda part, *_: [sys.executable, "-c", codes[part.name]]  # noqa: E731
        monkeypatch.setattr(gpu, "command_of", code_of)
        is_all = gpu.run_all(tmp_path, minutes, False, wanted)
        state = json.loads((tmp_path / gpu.STATE).read_text()) if (tmp_path / gpu.STATE).is_file() else {"parts": {}}
        return is_all, {name: part["outcome"] for name, part in state["parts"].items()}

    return run


RUNS, FAILS = "print('fine')", "import sys; sys.exit('out of memory')"


def test_parts_run_once_and_what_failed_runs_again_after_the_others(ended, tmp_path):
    assert ended(bad=FAILS, good=RUNS, absent="not here") == (
        False,
        {"bad": "failed", "good": "done", "absent": "left out"},
    )
    assert "out of memory" in json.loads((tmp_path / gpu.STATE).read_text())["parts"]["bad"]["log"]
    again = f"import pathlib; pathlib.Path({str(tmp_path / 'order')!r}).open('a').write"
    assert ended(bad=f"{again}('bad ')", good=FAILS, absent=FAILS, new=f"{again}('new ')")[0]
    assert (tmp_path / "order").read_text() == "new bad "
    # All done: nothing runs, unless it is named.
    assert ended(bad=FAILS, good=FAILS, absent=FAILS, new=FAILS)[0]
    assert ended(wanted=["good"], bad=RUNS, good=FAILS, absent=RUNS, new=RUNS)[1]["good"] == "failed"


def test_other_code_or_another_machine_begins_anew(ended):
    assert ended(one=RUNS, two=RUNS)[0]
    assert ended(identity="another machine", one=FAILS, two=RUNS) == (False, {"one": "failed", "two": "done"})


def test_no_part_starts_that_may_not_end_in_time(ended, capsys):
    assert ended(minutes=1.0, one=RUNS) == (False, {})
    assert "may take 1 minutes, 0.8 are left; call again" in capsys.readouterr().out
    assert ended(minutes=1.5, one=RUNS) == (True, {"one": "done"})


def test_a_part_that_hangs_is_stopped_with_what_it_started(monkeypatch, tmp_path):
    written = tmp_path / "written"
    child = f"import time, pathlib; time.sleep(8); pathlib.Path({str(written)!r}).touch()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(gpu, "command_of", lambda *_: [sys.executable, "-c", code])
    started = time.monotonic()
    assert gpu.run_part(gpu.Part("slow", 1, print), False, tmp_path, 2.0) == ("failed", "stopped after 2 s")
    time.sleep(max(0.0, started + 12 - time.monotonic()))
    assert not written.exists()


def test_outcomes_of_tests_are_counted_and_failures_named(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert False\n"
        "def test_absent(): pytest.skip('no GPU')\n"
    )
    with pytest.raises(RuntimeError, match="1 tests failed, 1 passed"):
        gpu.run_tests("gpu-tests", [str(tmp_path), "--rootdir", str(tmp_path), "-o", "addopts="], tmp_path)
    row = load_record(tmp_path / "gpu-tests.json").rows[0]
    assert row == {"num_passed": 1, "num_skipped": 1, "num_failed": 1, "failures": ["test_wrong"]}
    assert gpu_tables(tmp_path) == "Tests marked gpu: 1 passed, 1 failed, 1 skipped."


def test_every_test_that_needs_a_gpu_is_in_the_part_that_runs_them():
    marked = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark." + "gpu" in path.read_text(encoding="utf-8")
    }
    # A server on a GPU needs vLLM there, which no bare machine has.
    assert marked == {"selection", "serving"}
    assert "tests/selection" in gpu.gpu_tests(False)


def test_parts_of_a_rehearsal_are_those_of_the_day(monkeypatch):
    monkeypatch.setattr(gpu_models, "is_flash_attn_2_available", lambda: False)
    day, rehearsal = gpu.parts(False), gpu.parts(True)
    assert [part.name for part in day] == [part.name for part in rehearsal]
    assert len({part.name for part in day}) == len(day) == 9 + gpu.NUM_SHARDS
    assert [part.name for part in day if part.refusal] == [f"{name}-flash" for name in gpu_models.MODELS]
    assert all(part.minutes <= 8 - gpu.ENDING_SECONDS / 60 for part in day)
    assert len({part.record_name for part in gpu_models.model_parts(False)}) == 7


def test_shards_are_all_cells_once():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "tests/parity/test_parity.py",
        "-k",
        "llava- and text",
    ]
    found = []
    for shard in (["--shard", "1/2"], ["--shard", "2/2"], []):
        lines = subprocess.run([*command, *shard], capture_output=True, text=True, check=False, cwd=ROOT).stdout
        found.append({line for line in lines.splitlines() if "::test_cell[" in line})
    first, second, every = found
    assert min(len(first), len(second)) > 0
    assert first | second == every
    assert not first & second


def test_without_a_gpu_it_says_what_to_do(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert finished.returncode == 2
    assert "torch sees no GPU here; try the code with --rehearse" in finished.stderr
    assert gpu_tables(tmp_path) == UNMEASURED
