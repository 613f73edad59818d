"""Our numbers beside the printed ones, from records and sample scores made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from divprune.errors import RecordError
from divprune.evaluation.results import Results
from divprune.evaluation.runs import EvaluationRun
from divprune.experiments.comparison import NO_SCORE, NOT_YET, REFERENCE, Compared, Result, compared
from divprune.experiments.comparison_text import markdown, reasons, sections
from divprune.experiments.figure_runs import figure_rows
from divprune.experiments.paper.presets import Choice, Entry, entries, get_preset
from divprune.experiments.subjects import Subject
from divprune.records import Record


def save(
    folder: Path,
    run: EvaluationRun,
    metric: str,
    value: float | None,
    sample_scores: list[dict[str, Any]],
    **config: Any,
) -> None:
    known = {"metric": metric, "statistic": "mean", "num_samples": len(sample_scores)} | config
    row = {"metric": metric, "value": value, "stderr": None, "num_samples": len(sample_scores)}
    Record(run.name, run.as_config() | known, [row], {}).save(folder)
    if sample_scores:
        (folder / f"{run.name}.samples.jsonl").write_text(
            "".join(f"{json.dumps(sample_score)}\n" for sample_score in sample_scores)
        )


def right(places: range, count: int) -> list[dict[str, Any]]:
    return [{"doc_id": place, "said": "", "score": float(place in places)} for place in range(count)]


def table(llava: Subject, *data_sets: str) -> list[Entry]:
    return entries(get_preset("table1"), llava, Choice(data_sets=data_sets))


def cell_of(listed: list[Entry], row: str, column: str) -> EvaluationRun:
    return next(e.run for e in listed if (e.row.label, e.column.key) == (row, column) and e.run)


def result_of(found: Compared, row: str, column: str) -> Result:
    return next(r for r in found.results if (r.entry.row.label, r.entry.column.key) == (row, column))


@pytest.fixture
def gqa(llava: Subject, tmp_path: Path) -> Compared:
    """Unpruned 60 of 100 right, DivPrune 50 of them; random has a record without a score."""
    listed = table(llava, "gqa")
    save(tmp_path, cell_of(listed, "Original", "gqa"), "exact_match", 0.6, right(range(60), 100))
    save(tmp_path, cell_of(listed, "DivPrune", "gqa"), "exact_match", 0.5, right(range(50), 100))
    save(tmp_path, cell_of(listed, "random", "gqa"), "exact_match", None, [])
    save(tmp_path, cell_of(listed, "VTW", "gqa"), "exact_match", None, [], refusal="no such layer")
    return compared(listed, Results(tmp_path))


def test_a_number_beside_the_printed_one_and_the_unpruned_model(gqa: Compared) -> None:
    ours = result_of(gqa, "DivPrune", "gqa")
    assert (ours.value, ours.entry.printed) == (50.0, 56.85)
    assert ours.difference == pytest.approx(50 - 56.85)
    assert ours.interval.low < 50 < ours.interval.high
    assert ours.against.difference.value == pytest.approx(-10)
    assert ours.against.test == "exact McNemar"
    assert ours.against.p_value == pytest.approx(2 / 2**10)
    assert ours.share_kept.value == pytest.approx(50 / 60)
    assert gqa.shares["DivPrune"].value == pytest.approx(50 / 60)
    whole = result_of(gqa, "Original", "gqa")
    assert whole.value == 60
    assert whole.against is None


def test_what_is_missing_says_why(gqa: Compared) -> None:
    missing = {result.entry.row.label: result.missing for result in gqa.results}
    assert missing["M3"] == missing["PruMerge-LoRA"] == REFERENCE
    assert missing["FastV"] == NOT_YET
    assert missing["random"] == NO_SCORE
    assert missing["VTW"] == "not run: no such layer"
    assert result_of(gqa, "M3", "gqa").entry.printed == 60.81
    assert all((result.value is None) == (result.missing is not None) for result in gqa.results)
    assert f"{REFERENCE}: M3, PruMerge-LoRA" in reasons(gqa)


def test_the_table_in_words(gqa: Compared) -> None:
    page = markdown(gqa)
    line = next(line for line in page.splitlines() if line.startswith("| GQA | DivPrune |"))
    assert "| 50.00 (" in line
    assert "| 56.85 | -6.85 | -10.00 (" in line
    assert "| 0.002 | 83.3 % (" in line
    assert "| GQA | M3 | reference only | 60.81 |  |  |  |  |" in page
    assert "| all data sets | DivPrune |" in page
    assert "- only 100 samples, where the paper has: GQA (12,578)" in page
    assert "- reference only: M3, PruMerge-LoRA" in page
    # DivPrune is exact and bears no mark; others say how near their papers they are, and the legend what that means.
    for marked in (
        "| GQA | VTW\u2021 |",
        "| GQA | PruMerge* |",
        "| GQA | FastV at 56 tokens\u2021 |",
        "| GQA | random |",
    ):
        assert marked in page
    assert page.rstrip().endswith("\u2021 not compared with its authors' code.")
    titles = dict(sections(gqa, is_short=True))
    assert next(line for line in titles["GQA"] if line[0] == "DivPrune")[1].startswith("50.0 (")
    assert all(len(line) == 7 for lines in titles.values() for line in lines)


def test_rows_are_ready_for_json(gqa: Compared) -> None:
    row = json.loads(json.dumps(result_of(gqa, "DivPrune", "gqa").as_row()))
    assert (row["table"], row["row"], row["column"], row["printed"]) == ("table1", "DivPrune", "gqa", 56.85)
    assert row["unpruned_difference"] == pytest.approx(-10)
    assert row["share_kept_low"] < row["share_kept"] < row["share_kept_high"]
    fidelities = {result.entry.row.label: result.as_row()["fidelity"] for result in gqa.results}
    assert [fidelities[name] for name in ("DivPrune", "VTW", "PruMerge", "random", "Original", "M3")] == [
        "exact", "unverified", "documented", None, None, None
    ]  # fmt: skip
    assert json.loads(json.dumps(result_of(gqa, "M3", "gqa").as_row()))["p_value"] is None


def test_marks_that_do_not_give_the_score_tell_no_interval(llava: Subject, tmp_path: Path) -> None:
    listed = table(llava, "gqa")
    save(tmp_path, cell_of(listed, "Original", "gqa"), "exact_match", 0.7, right(range(60), 100))
    found = result_of(compared(listed, Results(tmp_path)), "Original", "gqa")
    assert (found.value, found.interval) == (70.0, None)


def test_scores_whose_marks_cannot_be_summed_have_a_value_alone(llava: Subject, tmp_path: Path) -> None:
    listed = table(llava, "mme")
    sample_scores = [{"doc_id": 0, "said": "", "score": 1.0, "category": "color", "question_id": "one"}]
    save(tmp_path, cell_of(listed, "DivPrune", "mme"), "mme_perception_score", 12.0, sample_scores, statistic="mme")
    found = result_of(compared(listed, Results(tmp_path)), "DivPrune", "mme")
    assert (found.value, found.interval) == (12.0, None)


def test_a_second_metric_has_a_value_but_no_test(tmp_path: Path) -> None:
    from divprune.experiments.subjects import paper_subject

    subject = paper_subject("llava-next-video-7b")
    listed = entries(get_preset("table2"), subject, Choice(data_sets=("activitynet",)))
    run = cell_of(listed, "Original", "activitynet")
    rows = [
        {"metric": metric, "value": value, "stderr": None, "num_samples": 2}
        for metric, value in (("gpt_eval_accuracy,none", 50.0), ("gpt_eval_score,none", 2.5))
    ]
    config = {"metric": "gpt_eval_accuracy", "statistic": "mean", "num_samples": 2}
    Record(run.name, run.as_config() | config, rows, {}).save(tmp_path)
    (tmp_path / f"{run.name}.samples.jsonl").write_text('{"doc_id": 0, "score": 100}\n{"doc_id": 1, "score": 0}\n')
    found = compared(listed, Results(tmp_path))
    assert result_of(found, "Original", "activitynet").value == 50
    assert result_of(found, "Original", "activitynet").interval is not None
    assert result_of(found, "Original", "activitynet_score").value == 2.5
    assert result_of(found, "Original", "activitynet_score").interval is None


def test_broken_files_are_named(llava: Subject, tmp_path: Path) -> None:
    listed = table(llava, "gqa")
    run = cell_of(listed, "Original", "gqa")
    save(tmp_path, run, "exact_match", 0.6, right(range(60), 100))
    (tmp_path / f"{run.name}.samples.jsonl").write_text('{"said": "yes"}\n')
    with pytest.raises(RecordError, match=r"samples\.jsonl must hold a sample score a line, with doc_id and score"):
        compared(listed, Results(tmp_path))
    save(tmp_path, run, "exact_match", 0.6, right(range(60), 100), statistic="median")
    with pytest.raises(RecordError, match="must name a statistic of mean, f1 and mme, got 'median'"):
        compared(listed, Results(tmp_path))


def figure(llava: Subject, folder: Path) -> list[dict[str, Any]]:
    listed = entries(get_preset("figure1"), llava)
    metrics = {entry.column.key: entry.column.metric for entry in listed}
    for key, metric in metrics.items():
        if key == "mean":
            continue
        scale = 100 if metric in ("gpt_eval_score",) else 1
        for row, count in (("Original", 60), ("DivPrune, 0.098", 50), ("PruMerge", 40)):
            sample_scores = [
                sample_score | {"score": sample_score["score"] * scale} for sample_score in right(range(count), 100)
            ]
            value = scale * count / 100
            # An F1 is not looked at here: the record says that its sample scores make a mean.
            save(folder, cell_of(listed, row, key), metric, value, sample_scores, num_kept_mean=30.0)
    results = Results(folder)
    return figure_rows(compared(listed, results), results)


def test_points_of_the_figures(llava: Subject, tmp_path: Path) -> None:
    rows = {row["label"]: row for row in figure(llava, tmp_path)}
    ours = rows["DivPrune, 0.098"]
    assert ours["mean"] == pytest.approx(50)
    assert ours["mean_low"] < 50 < ours["mean_high"]
    assert ours["flop_percent"] == pytest.approx(15.63, abs=0.01)
    # COCO 0.96, OKVQA 46.98, POPE 86.02, MMBench 59.19, and CIDEr times 100.
    assert ours["printed_mean"] == pytest.approx((96 + 46.98 + 86.02 + 59.19) / 4)
    assert ours["printed_percent"] == 15.63
    assert (rows["Original"]["series"], rows["Original"]["flop_percent"]) == ("unpruned", 100)
    assert 10 < rows["PruMerge"]["flop_percent"] < 15
    assert (rows["PruMerge"]["printed_percent"], rows["M3"]["mean"]) == (None, None)
    assert rows["FastV at 56 tokens, 0.098"]["series"] == "fastv at equal tokens"
    assert rows["random, 0.5"]["missing"].startswith("no score of COCO")
