"""Tables of what `benchmarks.gpu` and `benchmarks.selection --device cuda` measured, where their records are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divprune.experiments.paper.printed import LLAVA_VIDEO, printed_row
from divprune.fidelity import marked
from divprune.methods.registry import fidelity_of
from divprune.records import Record, load_record
from tools.cost_tables import bench_table
from tools.markdown import markdown_table

UNMEASURED = "*Not measured yet: no GPU has run it.*"
PAPERS_LABELS = {"unpruned": "Original", "vtw": "VTW", "fastv": "FastV", "divprune": "DivPrune"}
CALLS = {
    "paper": "paper's procedure",
    "plain": "plain torch",
    "compiled": "its steps compiled",
    "select": "`select`",
    "graph": "in a CUDA graph",
    "matrix_product": "one matrix product",
}


def gpu_tables(folder: Path) -> str:
    """The models' tables, those of the paper's Table 2 beside them, and how tests ended; whatever there is."""
    found = []
    for path in sorted(folder.glob("bench-*-cuda*.json")):
        record = load_record(path)
        found.append(f"{bench_table(record)} Attention: {record.config['attention']}.")
        if record.config["model"] == LLAVA_VIDEO:
            found.append(ratios_table(record))
    for pattern, title in (("gpu-tests", "Tests marked gpu"), ("parity-*-cuda", "Cells of the parity suite")):
        if rows := [load_record(path).rows[0] for path in sorted(folder.glob(f"{pattern}.json"))]:
            passed, failed, skipped = (
                sum(row[f"num_{how}"] for row in rows) for how in ("passed", "failed", "skipped")
            )
            found.append(f"{title}: {passed} passed, {failed} failed, {skipped} skipped.")
    return "\n\n".join(found) or UNMEASURED


def selection_gpu_table(record: Record) -> str:
    """The selection on a GPU, beside all that it is compared with."""
    rows = [row for row in record.rows if row["case"] in ("compare", "batch")]
    header = ("sets", "tokens", "kept", "features", *CALLS.values(), "faster by", "select / product")
    cells = [
        (
            str(row["batch_size"]),
            str(row["num_visual_tokens"]),
            str(row["num_keep"]),
            row["features"],
            *(_milliseconds(row, name) for name in CALLS),
            f"{row['speedup_median_ratio']:.1f} x",
            f"{1 / row['matrix_product_over_select_median_ratio']:.2f}",
        )
        for row in rows
    ]
    config, machine = record.config, record.provenance["machine"]
    has_kernel = all(row["has_kernel"] for row in rows)
    return (
        f"{markdown_table(header, cells, numbers_from=4)}\n\nMedians of {config['repeats']} runs in turns, "
        f"{config['dtype']} on the {config['device']}; {'the kernel' if has_kernel else 'without the kernel'}; "
        f"{machine['gpu']}, torch {record.provenance['versions']['torch']}."
    )


def _milliseconds(row: Mapping[str, Any], name: str) -> str:
    seconds = row.get(f"{name}_median_seconds")
    return "" if seconds is None else f"{1000 * seconds:.3f} ms"


def ratios_table(record: Record) -> str:
    """What each method leaves of the unpruned times and memory, beside what the paper's Table 2 prints."""
    full = next(row for row in record.rows if row["num_kept"] is None)
    measures = (("prefill", "prefill_median_seconds"), ("end_to_end", "end_to_end_median_seconds"))
    original = printed_row("table2", LLAVA_VIDEO, "Original")
    assert original is not None
    cells = []
    for row in record.rows:
        printed = printed_row("table2", LLAVA_VIDEO, PAPERS_LABELS.get(row["method"].partition(":")[0], ""))
        shown = [marked(f"`{row['method']}`", fidelity_of(row["method"]))]
        for key, name in measures:
            shown.append(f"{row[name] / full[name]:.2f}")
            shown.append("" if printed is None else f"{printed.values[key] / original.values[key]:.2f}")
        cells.append(tuple(shown))
    header = ("method", "prefill / unpruned", "in the paper", "whole answer / unpruned", "in the paper")
    return markdown_table(header, cells, numbers_from=1)
