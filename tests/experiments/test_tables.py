"""The tables of documents about the paper's experiments."""

from pathlib import Path

from divprune.experiments.paper.presets import entries, get_preset, runs
from divprune.experiments.subjects import Subject
from divprune.records import Record
from tools.paper_tables import plan_table, reproduced_table


def test_the_plan_has_a_line_for_each_table_and_model() -> None:
    lines = plan_table().splitlines()[2:]
    assert [tuple(run.strip() for run in line.split("|")[1:4]) for line in lines[:2]] == [
        ("`table1`", "LLaVA-1.5-7B", "99"),
        ("`table1`", "LLaVA-1.5-13B", "88"),
    ]
    assert len(lines) == 11


def test_our_numbers_stand_beside_the_papers(llava: Subject, tmp_path: Path) -> None:
    assert reproduced_table("table3", tmp_path) == "*Not measured yet.*"
    run = next(each for each in runs(entries(get_preset("table3"), llava)) if each.task.endswith("pope"))
    config = run.as_config() | {"metric": "pope_f1_score", "statistic": "f1", "num_samples": 9000}
    row = {"metric": "pope_f1_score", "value": 0.86, "stderr": None, "num_samples": 9000}
    Record(run.name, config, [row], {}).save(tmp_path)
    table = reproduced_table("table3", tmp_path)
    assert table.startswith("#### Table 3: the layer at which tokens go, LLaVA-1.5-7B")
    assert "| POPE | Original | 86.00 | 85.84 | +0.16 |  |  |  |" in table
