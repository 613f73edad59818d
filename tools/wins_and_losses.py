"""When a method wins and loses on the generated scenes and videos, in words, from the records of the suites."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from divprune.records import Record, load_record
from tools.scene_tables import SUITE_COLUMNS

RESULTS = Path(__file__).parent.parent / "results"
RECORDS = {"image": "eval-scenes", "video": "eval-scenes-video"}
_BASELINES = ("random", "divprune")

Row = Mapping[str, Any]


@cache
def suite(modality: str) -> Record:
    """The record of the suite of images or videos, at the default positions."""
    return load_record(RESULTS / f"{RECORDS[modality]}.json")


def rows_at_equal_tokens(record: Record, method: str) -> list[Row]:
    """A method's answered rows, whatever its parameters, but for those at equal FLOPs."""
    return [
        row
        for row in record.rows
        if row["method"].partition(":")[0] == method and row["refusal"] is None and row["matching"] != "flops"
    ]


def beside(row: Row, other: Row) -> int:
    """1 if a row's mean is above another's beyond both intervals, -1 if below, 0 if they are not told apart."""
    if row["mean_low_percent"] > other["mean_high_percent"]:
        return 1
    return -1 if row["mean_high_percent"] < other["mean_low_percent"] else 0


def wins_and_losses(method: str, modalities: Sequence[str]) -> str:
    """A list with an entry a count, for each suite that a method was measured in."""
    parts = []
    for modality in modalities:
        record = suite(modality)
        rows = rows_at_equal_tokens(record, method)
        if rows:
            parts += [record.config["notice"], "\n".join(f"- {_line(record, row)}" for row in rows)]
    if not parts:
        return "Not measured at equal tokens; see the records below."
    return "\n\n".join([*parts, "*Not told apart*: the 95 % intervals of the means overlap."])


def _line(record: Record, row: Row) -> str:
    parameters = row["method"].partition(":")[2]
    share = f"{row['num_kept']:.0f} tokens, {row['flop_percent']:.0f} % of the prefill's FLOPs"
    named = f" (`{parameters}`)" if parameters else ""
    sentences = [f"**{share}**{named}: {row['mean_percent']:.1f} % right on average"]
    sentences += [_compared(row, other) for name in _BASELINES if (other := _same_count(record, row, name))]
    worst = _lost_most(record, row)
    return "; ".join([*sentences, *([worst] if worst else [])]) + "."


def _same_count(record: Record, row: Row, name: str) -> Row | None:
    """The row of a baseline at the keep ratio of another row; None if it is that row, or there is none."""
    found = (other for other in rows_at_equal_tokens(record, name) if other["keep_ratio"] == row["keep_ratio"])
    other = next(found, None)
    return None if other is None or other["method"] == row["method"] else other


def _compared(row: Row, other: Row) -> str:
    word = {1: "better than", 0: "not told apart from", -1: "worse than"}[beside(row, other)]
    return f"{word} `{other['method']}` ({other['mean_percent']:.1f})"


def _lost_most(record: Record, row: Row) -> str | None:
    """The kind of question that falls farthest from the unpruned model; None if none falls."""
    unpruned = record.rows[0]
    losses = {
        title: (unpruned[f"{name}_percent"], row[f"{name}_percent"])
        for name, title in SUITE_COLUMNS.items()
        if f"{name}_percent" in row
    }
    title, (before, after) = max(losses.items(), key=lambda item: item[1][0] - item[1][1])
    return f"loses most on {title}, {before:.1f} to {after:.1f}" if before > after else None
