"""The tables of the scenes suite and of the greedy benchmark, from records made by hand."""

from typing import Any

from divprune.fidelity import FIDELITY_LEGEND
from divprune.records import Record
from tools.scene_tables import greedy_table, method_table, suite_table


def suite_row(method: str, matching: str | None, kept: float | None, refusal: str | None = None) -> dict[str, Any]:
    row = {"method": method, "matching": matching, "keep_ratio": 0.1, "num_kept": kept, "refusal": refusal}
    row |= {"fidelity": {"fastv": "unverified", "divprune": "exact"}.get(method)}
    if refusal is not None:
        return row | {"flop_percent": None}
    columns = ("existence_f1", "count", "color", "shape", "position", "mean")
    scores = {f"{column}{which}_percent": 75.0 for column in columns for which in ("", "_low", "_high")}
    return row | scores | {"flop_percent": 12.34, "caption_cider": None}


def test_suite_rows_are_not_repeated_where_equal_tokens_are_equal_flops() -> None:
    rows = [
        suite_row("unpruned", None, 256),
        suite_row("divprune", "tokens", 25),
        suite_row("divprune", "flops", 25),
        suite_row("fastv", "tokens", 25),
        suite_row("fastv", "flops", 12),
        suite_row("evs", "tokens", None, "needs a video"),
        suite_row("evs", "flops", None, "needs a video"),
    ]
    config = {"notice": "A bench on toy scenes.", "confidence": 0.95, "num_scenes": 5, "positions": "original"}
    table = suite_table(Record("eval-scenes", config, rows, {}))
    assert table.startswith("A bench on toy scenes.\n\n| method |")
    assert [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ") and "method" not in line] == [
        [" --- ", " ---: "],
        [" unpruned ", " 256 "],
        [" divprune ", " 25 "],
        [" fastv‡ ", " 25 "],
        [" --- ", " ---: "],
        [" fastv‡ ", " 12 "],
    ]
    assert table.count("- refused: `evs`: needs a video") == 1
    assert "| 12.3 % | 75.0 |" in table
    assert f"5 scenes, original positions; 95% intervals by a bootstrap over scenes. {FIDELITY_LEGEND}" in table


def test_a_method_stands_behind_unpruned_and_random_rows_and_says_what_is_equal() -> None:
    rows = [
        suite_row("unpruned", None, 256),
        suite_row("picture withheld", None, 0),
        *(suite_row("random", matching, 25) for matching in ("tokens", "flops")),
        suite_row("fastv", None, 40) | {"keep_ratio": None},
        suite_row("fastv", "tokens", 25),
        suite_row("fastv", "flops", 12),
        suite_row("evs", "tokens", 25),
    ]
    record = Record("eval-scenes", {}, rows, {})
    expected = [
        ("unpruned", "", "256"),
        ("picture withheld", "", "0"),
        ("random", "tokens and FLOPs", "25"),
        ("fastv‡", "", "40"),
        ("fastv‡", "tokens", "25"),
        ("fastv‡", "FLOPs", "12"),
    ]
    assert _first_cells(method_table(record, rows[4:7])) == expected
    # The random rows are not repeated on the page of random itself.
    assert _first_cells(method_table(record, rows[2:4])) == expected[:3]


def _first_cells(table: str) -> list[tuple[str, ...]]:
    return [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in table.splitlines()[2:]]


def test_greedy_rows_stand_by_count() -> None:
    numbers = {"max_min_median_distance": 0.0275, "bound_median_distance": 0.0412}
    numbers |= {f"share_of_optimum_{which}_percent": 67.0 for which in ("median", "p20", "p80")}
    numbers |= {
        f"{score}{which}_percent": -1.25 for score in ("mean", "beyond_greedy") for which in ("", "_low", "_high")
    }
    rows = [
        {"method": method, "num_kept": kept, **numbers} for method in ("divprune", "random") for kept in (13.0, 64.0)
    ]
    table = greedy_table(Record("greedy", {"notice": "Toy scenes.", "num_scenes": 9}, rows, {}))
    names = [line.split("|")[1:3] for line in table.splitlines()[4:8]]
    assert names == [[f" `{method}` ", f" {kept} "] for kept in (64, 13) for method in ("divprune", "random")]
    assert "| 0.0275 | 0.0412 | 67 % (67 to 67) | -1.2 (-1.2 to -1.2) | -1.2 (-1.2 to -1.2) |" in table
