"""Tables of what was measured on toy scenes and videos: `divprune eval --suite scenes`, `benchmarks.greedy`."""

from collections.abc import Mapping, Sequence
from typing import Any

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.records import Record
from tools.markdown import markdown_table

SUITE_COLUMNS = {
    "existence_f1": "existence F1",
    "count": "count",
    "color": "color",
    "shape": "shape",
    "position": "position",
    "motion": "motion",
    "order": "order",
}
"""Scores in percent, and how tables call them; each suite has some."""

MATCHING_WORDS = {"tokens": "tokens", "flops": "FLOPs", None: ""}


def suite_table(record: Record) -> str:
    """Every method at equal tokens, then those whose counts differ at equal FLOPs, then refusals."""
    answered = [row for row in record.rows if row["refusal"] is None]
    at_equal_tokens = [row for row in answered if row["matching"] != "flops"]
    seen = {(row["method"], row["num_kept"]) for row in at_equal_tokens}
    others = [row for row in answered if (row["method"], row["num_kept"]) not in seen]
    parts = [record.config["notice"], suite_rows(at_equal_tokens)]
    if others:
        parts += ["At equal FLOPs, where that means other counts:", suite_rows(others)]
    refusals = dict.fromkeys((row["method"], row["refusal"]) for row in record.rows if row["refusal"] is not None)
    parts += ["\n".join(f"- refused: `{method}`: {reason}" for method, reason in refusals)] if refusals else []
    shown = "videos" if record.name == "eval-scenes-video" else "scenes"
    confidence = f"{record.config['confidence']:.0%} intervals by a bootstrap over {shown}"
    numbered = f"{record.config['positions']} positions"
    return "\n\n".join([*parts, f"{record.config['num_scenes']} {shown}, {numbered}; {confidence}. {FIDELITY_LEGEND}"])


def method_table(record: Record, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a method behind the unpruned one, the one with nothing shown and the random ones; what is equal is said.

    Rows at equal tokens and at equal FLOPs are one where they are the same run.
    """
    random = [row for row in record.rows if row["method"] == "random" and row["refusal"] is None]
    shown = [*record.rows[:2], *random, *(row for row in rows if row not in random)]
    runs: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in shown:
        runs.setdefault((row["method"], row["keep_ratio"], row["num_kept"]), []).append(row)
    equal = [" and ".join(MATCHING_WORDS[row["matching"]] for row in same) for same in runs.values()]
    return suite_rows([same[0] for same in runs.values()], equal)


def suite_rows(rows: Sequence[Mapping[str, Any]], equal: Sequence[str] = ()) -> str:
    """A line a method, keep ratio and matching; `equal` says of each what it has in common with other methods' rows."""
    columns = [name for name in SUITE_COLUMNS if f"{name}_percent" in rows[0]]
    cider = ("CIDEr",) if "caption_cider" in rows[0] else ()
    named = ("method", "equal") if equal else ("method",)
    header = (*named, "tokens", "FLOPs", *(SUITE_COLUMNS[name] for name in columns), *cider, "mean")
    cells = [
        (
            marked(row["method"], row["fidelity"]),
            *equal[place : place + 1],
            f"{row['num_kept']:.0f}",
            f"{row['flop_percent']:.1f} %",
            *(f"{row[f'{column}_percent']:.1f}" for column in columns),
            *("" if row["caption_cider"] is None else f"{row['caption_cider']:.2f}" for _ in cider),
            _with_interval(row, "mean"),
        )
        for place, row in enumerate(rows)
    ]
    return markdown_table(header, cells, numbers_from=len(named))


def greedy_table(record: Record) -> str:
    """Distances, how much of the best possible they are, and what they are worth."""
    header = (
        "method",
        "tokens",
        "max-min distance",
        "bound",
        "at least of the best",
        "mean",
        "beyond greedy",
    )
    cells = [
        (
            f"`{row['method']}`",
            f"{row['num_kept']:.0f}",
            f"{row['max_min_median_distance']:.4f}",
            f"{row['bound_median_distance']:.4f}",
            f"{row['share_of_optimum_median_percent']:.0f} % ({row['share_of_optimum_p20_percent']:.0f} to "
            f"{row['share_of_optimum_p80_percent']:.0f})",
            _with_interval(row, "mean"),
            f"{row['beyond_greedy_percent']:+.1f} ({row['beyond_greedy_low_percent']:+.1f} to "
            f"{row['beyond_greedy_high_percent']:+.1f})",
        )
        for row in sorted(record.rows, key=lambda row: -row["num_kept"])
    ]
    notes = "medians (20th to 80th percentile) of distances, 95 % intervals of accuracies, in percent."
    table = markdown_table(header, cells, numbers_from=1)
    return f"{record.config['notice']}\n\n{table}\n\n{record.config['num_scenes']} scenes; {notes}"


def _with_interval(row: Mapping[str, Any], score: str) -> str:
    value, low, high = (row[f"{score}{which}_percent"] for which in ("", "_low", "_high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
