"""The printed numbers, run by run against a second transcription of the paper's tables."""

import re

import pytest

from divprune.experiments.paper.columns import EFFICIENCY_COLUMNS, IMAGE_COLUMNS, VIDEO_COLUMNS, columns
from divprune.experiments.paper.printed import ABLATIONS, TABLE1, TABLE2, TABLE3, PrintedRow, printed_row

TABLE1_TEXT = """
LLaVA-1.5-7B
 Original      100   | 1.10 0.75 61.96 64.09 1506 36.44 1.06 53.39 85.84 69.41 66.17
 VTW           18.46 | 0.05 0.03 38.94 21.31  681 32.60 0.03 18.64 25.35 65.29 36.13
 FastV         15.69 | 0.06 0.03 38.73 20.62  696 32.00 0.04 18.32 32.84 65.15 35.69
 DivPrune      15.63 | 0.96 0.62 56.85 59.19 1328 35.89 0.92 46.98 86.02 68.27 59.47
 PruMerge      varies| 0.77 0.50 51.30 54.47 1259 35.11 0.73 41.74 66.89 68.91 53.26
 DivPrune*     varies| 0.91 0.56 55.25 58.16 1330 35.44 0.87 44.38 83.06 67.87 57.88
 FitPrune      15.65 | 0.90 0.56 52.39 57.65 1197 36.00 0.86 42.53 60.89 68.02 54.84
 M3 (trained)  15.63 | 1.00 0.67 60.81 65.81 1391 31.80 0.95 55.12 86.33 64.65 64.93
 PruMerge-LoRA varies| 0.96 0.63 55.96 59.88 1334 34.89 0.90 47.99 77.13 68.32 57.93
LLaVA-1.5-13B
 Original      100   | 1.16 0.80 63.33 68.64 1522 35.67 1.09 58.28 85.99 72.88 66.82
 VTW           16.16 | 0.08 0.05 39.71 21.91  622 32.10 0.05 22.49  0.40 66.24 38.59
 FastV         15.73 | 0.38 0.18 44.98 37.80  942 35.11 0.33 32.14 30.02 69.96 44.95
 DivPrune      15.71 | 1.00 0.66 57.29 63.40 1407 34.89 0.95 53.29 83.43 72.34 62.04
 PruMerge      varies| 0.80 0.53 52.01 58.93 1256 36.56 0.77 49.15 64.36 72.53 56.10
 DivPrune*     varies| 0.94 0.59 56.09 61.77 1344 34.89 0.91 50.86 79.60 71.34 60.00
LLaVA-1.6-7B
 Original      100   | 1.00 0.68 64.28 67.01 1520 36.44 0.88 44.20 86.38 70.15 70.16
 VTW           11.23 | 0.06 0.03 38.62 19.76  606 31.30 0.03  8.66  7.13 65.74 37.48
 FastV         11.30 | 0.06 0.03 38.79 20.36  619 32.56 0.04  8.80  7.78 65.49 37.62
 DivPrune      10.79 | 0.89 0.61 58.69 63.49 1362 37.11 0.76 41.92 82.97 68.57 64.11
 M3 (trained)  10.79 | 1.01 0.67 62.97 69.16 1490 35.00 0.85 57.49 87.44 69.51 68.49
"""
TABLE2_TEXT = """
 Original  6.539 (100)   2.67/48.10             38.7   2.16         26.05  41.8       14.06   0.330      4.37
 VTW       1.124 (16.97) 1.61/26.84             29.39  1.19         18.66  25.42      13.63   0.150      3.43
 FastV     0.943 (14.20) 1.95/33.91             32.98  1.44         22.51  29.14      13.57   0.150      3.63
 DivPrune  0.937 (14.10) 2.56/45.90             37.00  1.92         24.48  39.76      13.51   0.161      3.39
"""
TABLE3_TEXT = """
 layer 0 (56 tokens) 59.19 35.89 86.02 68.27 62.34      cosine          62.34
 layer 1 (39 tokens) 59.02 34.89 80.67 67.18 60.44      l2 distance     62.22
 layer 2 (21 tokens) 54.90 34.22 69.27 69.56 56.99      l1 distance     61.94
 layer 3 ( 2 tokens) 23.97 32.67 31.82 65.94 38.60      random tokens   56.66
                                                        min-max (least diverse) 46.53
"""
NUMBER = r"\d+(?:\.\d+)?"


def lines(text: str) -> list[str]:
    return text.strip("\n").splitlines()


def test_table_1_is_as_printed() -> None:
    model, rows = "", iter(TABLE1)
    for line in lines(TABLE1_TEXT):
        if not line.startswith(" "):
            model = line.lower()
            continue
        head, numbers = line.split("|")
        name, ratio = re.fullmatch(r" (.+?)\s+(varies|[\d.]+)\s*", head).groups()
        row = next(rows)
        assert (row.model, row.label) == (model, name.removesuffix(" (trained)"))
        assert row.flop_percent == (None if ratio == "varies" else float(ratio))
        assert row.varies == (ratio == "varies")
        assert row.is_trained == ("(trained)" in name or name == "PruMerge-LoRA")
        assert list(row.values.values()) == [float(number) for number in numbers.split()]
        assert list(row.values) == [column.key for column in IMAGE_COLUMNS]
    assert next(rows, None) is None


def test_table_2_is_as_printed() -> None:
    for row, line in zip(TABLE2, lines(TABLE2_TEXT), strict=True):
        assert row.label == line.split()[0]
        assert [row.tflops, row.flop_percent, *row.values.values()] == [
            float(each) for each in re.findall(NUMBER, line)
        ]
        assert list(row.values) == [column.key for column in (*VIDEO_COLUMNS, *EFFICIENCY_COLUMNS)]


def test_table_3_and_the_ablations_are_as_printed() -> None:
    layers, ablations = [], []
    for line in lines(TABLE3_TEXT):
        if line.startswith(" layer"):
            name, numbers = re.match(r" (layer \d) \( ?\d+ tokens\)((?: [\d.]+){5})", line).groups()
            layers.append((name, [float(number) for number in numbers.split()]))
        name, number = re.search(rf"(cosine|l\d distance|random tokens|min-max)[ \w()]*? +({NUMBER})$", line).groups()
        ablations.append((name, [float(number)]))
    assert [(row.label, list(row.values.values())) for row in TABLE3] == layers
    assert [(row.label, list(row.values.values())) for row in ABLATIONS] == ablations


@pytest.mark.parametrize("row", TABLE3, ids=lambda row: row.label)
def test_the_printed_mean_is_that_of_the_four_scores(row: PrintedRow) -> None:
    scores = [value for key, value in row.values.items() if key != "mean"]
    assert sum(scores) / 4 == pytest.approx(row.values["mean"], abs=0.0051)


def test_rows_are_found_by_name() -> None:
    found = printed_row("table1", "llava-1.5-13b", "VTW")
    assert found is not None
    assert found.values["pope"] == 0.40
    assert printed_row("table1", "llava-1.5-13b", "FitPrune") is None


def test_every_column_has_a_source() -> None:
    assert [column.source.key for column in columns(["pope", "activitynet_score"])] == ["pope", "activitynet"]
    assert not columns(["mean"])[0].is_score
    with pytest.raises(ValueError, match="column must be one of"):
        columns(["popes"])
