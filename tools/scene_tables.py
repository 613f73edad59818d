"""Tables of what was measured on toy scenes: `divprune eval --suite scenes` (and scenes-video), `benchmarks.greedy`."""

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
    confidence = f"{record.config['confidence']:.0%} intervals by a bootstrap over scenes"
    shown = "videos" if record.config.get("model") == "embedded-video" else "scenes"
    numbered = f"{record.config['positions']} positions"
    return "\n\n".join([*parts, f"{record.config['num_scenes']} {shown}, {numbered}; {confidence}. {FIDELITY_LEGEND}"])


def suite_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a method, keep ratio and matching."""
    columns = [name for name in SUITE_COLUMNS if f"{name}_percent" in rows[0]]
    cider = ("CIDEr",) if "caption_cider" in rows[0] else ()
    header = ("method", "tokens", "FLOPs", *(SUITE_COLUMNS[name] for name in columns), *cider, "mean")
    cells = [
        (
            marked(row["method"], row["fidelity"]),
            f"{row['num_kept']:.0f}",
            f"{row['flop_percent']:.1f} %",
            *(f"{row[f'{column}_percent']:.1f}" for column in columns),
            *("" if row["caption_cider"] is None else f"{row['caption_cider']:.2f}" for _ in cider),
            _with_interval(row, "mean"),
        )
        for row in rows
    ]
    return markdown_table(header, cells, numbers_from=1)


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
