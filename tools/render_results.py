"""Write the tables of README.md and docs, and the methods' pages: `python -m tools.render_results`.

A table between `<!-- results:NAME -->` and `<!-- /results -->` comes from a record under results/, one between
`<!-- table:NAME -->` and `<!-- /table -->` from the package itself. No number there is typed by hand.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from divprune.efficiency.foreign_load import busy_note
from divprune.errors import RecordError
from divprune.methods.registry import built_in
from divprune.outputs import write_whole
from divprune.records import Record, load_record
from divprune.serving.served_methods import SERVED_FILE, served_text
from tools.cost_tables import bench_table, serving_table, soak_table
from tools.encoder_tables import encoder_dedup_table, encoder_scenes_table, encoder_time_table
from tools.gpu_tables import gpu_tables, selection_gpu_table
from tools.hero import hero
from tools.markdown import markdown_table
from tools.method_pages import deviation, write_pages
from tools.paper_tables import plan_table, reproduced_table
from tools.published_scores import published_table
from tools.reader_tables import (
    citation,
    families_line,
    flop_table,
    headline_numbers,
    paper_accuracy,
    random_table,
    sparsevlm_table,
    which_method,
)
from tools.scene_tables import greedy_table, suite_table
from tools.served_table import served_table
from tools.tuning_table import tuning_shape_table, tuning_table

ROOT = Path(__file__).parent.parent
FILES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("results", "reproduce", "fidelity", "serving", "tune", "choose", "faq", "index")),
)
PRINTED_TABLES = ("table1", "table2", "table3", "ablations")

Rows = Sequence[Mapping[str, Any]]


def main() -> None:
    """Rewrite the files whose tables have changed."""
    for name in FILES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            write_whole(path, after)
            print(f"{name} rewritten")
    write_pages()
    served = served_text([method.name for method in built_in()])
    if SERVED_FILE.read_text(encoding="utf-8") != served:
        write_whole(SERVED_FILE, served)
        print(f"{SERVED_FILE.relative_to(ROOT)} rewritten")


def render(text: str) -> str:
    """Fill every marked place of a page."""

    def filled(match: re.Match[str]) -> str:
        kind, name = match["kind"], match["name"]
        table = TABLES[name]() if kind == "table" else _result(name)
        return f"<!-- {kind}:{name} -->\n{table}\n<!-- /{kind} -->"

    return re.sub(r"<!-- (?P<kind>results|table):(?P<name>[\w-]+) -->.*?<!-- /(?P=kind) -->", filled, text, flags=re.S)


def _result(name: str) -> str:
    record_name, table = RESULTS[name]
    # What was measured on a GPU stands below what was measured on a CPU.
    devices = ((record_name, table), (f"{record_name}-cuda", ON_GPUS.get(name, table)))
    found = [_table(ROOT / "results" / f"{each}.json", made) for each, made in devices]
    return "\n\n".join(each for each in found if each) or "*Not measured yet.*"


def _table(path: Path, table: Callable[[Record], str]) -> str | None:
    """The table of a record; None where there is none."""
    if not path.is_file():
        return None
    try:
        return table(load_record(path))
    except KeyError as error:
        raise RecordError(
            f"{path.name} has no {error}, so another version of its benchmark wrote it; measure again"
        ) from None


def fidelity_table() -> str:
    """Every method of a paper: how near it is, and what deviates."""
    rows = []
    for method in built_in():
        if method.paper is not None:
            name = f"[`{method.name}`](methods/{method.name}.md)"
            rows.append((name, method.fidelity, deviation(method), method.paper.citation))
    header = ("method", "fidelity", "what deviates", "paper")
    return markdown_table(header, rows, numbers_from=len(header))


def selection_table(record: Record) -> str:
    """The selection beside the paper's procedure, and how it was measured."""
    cells = [
        (
            str(row["num_visual_tokens"]),
            str(row["num_keep"]),
            row["features"],
            *(_milliseconds(row[f"{name}_median_seconds"]) for name in ("paper", "select", "matrix_product")),
            f"{row['speedup_median_ratio']:.2f} x",
        )
        for row in _case(record, "compare")
    ]
    header = ("tokens", "kept", "features", "paper's procedure", "`select`", "one matrix product", "faster by")
    return f"{markdown_table(header, cells, numbers_from=3)}\n\n{_measured(record)}"


def selection_details(record: Record) -> str:
    """The same, with batches and memory."""
    lines = [selection_table(record), ""]
    if small := _case(record, "small"):
        lines += [_small_sets(small), ""]
    for row in _case(record, "batch"):
        size = f"{row['batch_size']} x {row['num_visual_tokens']}"
        loop, batch = (_milliseconds(row[f"{name}_median_seconds"]) for name in ("loop", "batch"))
        lines.append(f"- {size} tokens ({row['features']}): {batch} as one batch, {loop} in a loop.")
    for row in _case(record, "memory"):
        beyond, whole = (f"{row[name] / 2**20:.0f} MiB" for name in ("peak_bytes_beyond_input", "input_bytes"))
        counts = f"{row['num_keep']} of {row['num_visual_tokens']} tokens ({row['features']})"
        lines.append(f"- {counts}: at most {beyond} beyond the input of {whole}.")
    return "\n".join(lines)


def _small_sets(rows: Rows) -> str:
    """Small sets, alone and in batches, beside the paper's procedure on one after the other."""
    cells = [
        (
            f"{row['batch_size']} x {row['num_visual_tokens']}",
            str(row["width"]),
            row["features"],
            *(_milliseconds(row[f"{name}_median_seconds"]) for name in ("paper", "select")),
            f"{row['speedup_median_ratio']:.2f} x",
        )
        for row in rows
    ]
    header = ("sets x tokens", "width", "features", "paper's procedure", "`select`", "faster by")
    return markdown_table(header, cells, numbers_from=3)


def _case(record: Record, case: str) -> Rows:
    return [row for row in record.rows if row["case"] == case]


def _milliseconds(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _measured(record: Record) -> str:
    """How and where, in one line."""
    config, machine = record.config, record.provenance["machine"]
    return (
        f"Medians of {config['repeats']} runs in turns after {config['warm_up']} to warm up, {config['dtype']} on the "
        f"{config['device']}; {machine['processor']}, {_threads(machine['num_threads'])}, "
        f"torch {record.provenance['versions']['torch']}. {_busy(record)}"
    ).rstrip()


def _busy(record: Record) -> str:
    """What to know about other load, in the rounds of the run or in rows that are rounds of their own."""
    rounds = [each for each in (record.config, *record.rows) if "busy_rounds" in each]
    cores = [core for each in rounds for core in each["foreign_cores"]]
    return busy_note({"foreign_cores": cores, "busy_rounds": sum(each["busy_rounds"] for each in rounds)})


def pipeline_table(record: Record) -> str:
    """A whole call beside its ideal, and the parts of both."""
    columns = ("prefill", "language_model", "encoder", "selection", "decode_per_token", "overhead")
    cells = [
        (row["case"], *(_milliseconds(row.get(f"{name}_median_seconds")) for name in columns)) for row in record.rows
    ]
    header = ("call", "first token", "language model", "encoder", "selection", "each further token", "all else")
    pruned = next(row for row in record.rows if row["case"] == "divprune")
    config, versions = record.config, record.provenance["versions"]
    summary = (
        f"First token after pruning: {pruned['prefill_speedup_median_ratio']:.2f} x as fast, and "
        f"{pruned['prefill_over_ideal_median_ratio']:.2f} of ideal + encoder + selection. {config['architecture']} "
        f"with {config['num_layers']} decoder layers and random weights, {config['num_kept']} of "
        f"{config['num_visual_tokens']} visual tokens, {config['num_text_tokens']} of text; {config['dtype']} on the "
        f"{config['device']}; medians of {config['repeats']} rounds; torch {versions['torch']}. {_busy(record)}"
    ).rstrip()
    return f"{markdown_table(header, cells, numbers_from=1)}\n\n{summary}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


SCENE_COLUMNS = ("existence", "count", "color", "shape", "position", "caption", "mean")


def scenes_table(record: Record) -> str:
    """Every setting of the scenes benchmark, random draws averaged over their seeds."""
    return _scenes(_without_seeds(record.rows))


def _scenes(rows: Rows) -> str:
    cells = [
        (
            row["method"],
            row["positions"] or "",
            str(row["num_kept"]),
            *(f"{row[f'{column}_percent']:.1f}" for column in SCENE_COLUMNS),
        )
        for row in rows
    ]
    return markdown_table(("method", "positions", "tokens", *SCENE_COLUMNS), cells, numbers_from=2)


def _without_seeds(rows: Rows) -> Rows:
    """One row for all draws of a random method, their accuracies averaged."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["positions"], row["keep_ratio"]), []).append(row)
    averages = [
        {f"{name}_percent": fmean(row[f"{name}_percent"] for row in group) for name in SCENE_COLUMNS}
        for group in groups.values()
    ]
    return [{**group[0], **average} for group, average in zip(groups.values(), averages, strict=True)]


TABLES: dict[str, Callable[[], str]] = {
    "hero": partial(hero, "figures"),
    "hero-readme": partial(hero, "docs/figures"),
    "families": families_line,
    "citation": citation,
    "fidelity": fidelity_table,
    "served": served_table,
    "gpu": lambda: gpu_tables(ROOT / "results"),
    "numbers": headline_numbers,
    "paper-accuracy": paper_accuracy,
    "which": partial(which_method, "methods"),
    "which-readme": partial(which_method, "docs/methods"),
    "published": published_table,
    "random": random_table,
    "flops": flop_table,
    "sparsevlm": sparsevlm_table,
    "paper-plan": plan_table,
    **{f"paper-{name}": partial(reproduced_table, name, ROOT / "results" / "paper") for name in PRINTED_TABLES},
}
RESULTS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "pipeline": ("pipeline", pipeline_table),
    "selection-details": ("selection", selection_details),
    "scenes": ("scenes", scenes_table),
    "eval-scenes": ("eval-scenes", suite_table),
    "eval-scenes-compact": ("eval-scenes-compact", suite_table),
    "eval-scenes-video": ("eval-scenes-video", suite_table),
    "greedy": ("greedy", greedy_table),
    "bench-7b": ("bench-llava-1.5-7b", bench_table),
    "encoder-time": ("encoder-time-llava-1.5-7b", encoder_time_table),
    "encoder-time-qwen": ("encoder-time-qwen2-vl-7b", encoder_time_table),
    "encoder-scenes": ("encoder-scenes", encoder_scenes_table),
    "encoder-dedup": ("encoder-dedup", encoder_dedup_table),
    "serving": ("serving", serving_table),
    "soak": ("soak", soak_table),
    "tuning": ("tuning", tuning_table),
    "tuning-shape": ("tuning-llava-1.5-7b", tuning_shape_table),
}
# Tables that differ where a record is of a GPU.
ON_GPUS = {"selection-details": selection_gpu_table}

if __name__ == "__main__":
    main()
