"""Tables of what methods cost: `divprune bench`, `benchmarks.serving` and `benchmarks.soak`."""

from collections.abc import Mapping
from typing import Any

from divprune.fidelity import FIDELITY_LEGEND, marked
from divprune.methods.registry import fidelity_of
from divprune.records import Record
from tools.markdown import markdown_table

MEBI = 2**20


def bench_table(record: Record) -> str:
    """Times, memory and cache of each method in one run, and how many times as fast it is as the unpruned model."""
    full = next(row for row in record.rows if row["num_kept"] is None)
    cells = [
        (
            marked(f"`{row['method']}`", row.get("fidelity", fidelity_of(row["method"]))),
            "all" if row["num_kept"] is None else f"{row['num_kept']:.0f}",
            _with_ratio(row["prefill_median_seconds"], full["prefill_median_seconds"]),
            _with_ratio(row["ttft_median_seconds"], full["ttft_median_seconds"]),
            _with_ratio(row["end_to_end_median_seconds"], full["end_to_end_median_seconds"]),
            f"{row['decode_median_tokens_per_second']:.2f}",
            "" if row is full else f"{1000 * row['selection_median_seconds']:.1f} ms",
            f"{row['kv_cache_bytes'] / MEBI:.0f} MiB",
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / MEBI:,.0f} MiB",
        )
        for row in record.rows
    ]
    header = (
        "method",
        "kept",
        "prefill",
        "first token",
        f"{record.config['num_new_tokens']} tokens",
        "tokens/s",
        "selection",
        "KV cache",
        "peak memory",
    )
    return f"{markdown_table(header, cells, numbers_from=1)}\n\n{_measured(record)} Methods: {FIDELITY_LEGEND}"


def _rate(requests: float, full_requests: float) -> str:
    return f"{requests:.2f} ({requests / full_requests:.2f} x)"


def _with_ratio(seconds: float, full_seconds: float) -> str:
    return f"{seconds:.2f} s ({full_seconds / seconds:.2f} x)"


def _measured(record: Record) -> str:
    config, machine = record.config, record.provenance["machine"]
    model = f"{config['model']}, {config['num_layers']} decoder layers, {config['weights']} weights, {config['dtype']}"
    runs = f"medians of {config['repeats']} runs in turns after {config['warm_up']} to warm up"
    where = f"{machine['processor']}, {machine['num_threads']} threads, torch {record.provenance['versions']['torch']}"
    return (
        f"{model} on the {config['device']}; prompt of {config['num_prompt_tokens']} tokens; {runs}. Peak memory is of "
        f"a process for each method. {where}."
    )


def serving_table(record: Record) -> str:
    """Requests per second of each server on both kinds of traffic, and what they hold of the key-value pool."""
    full = {row["traffic"]: row["requests_median_per_second"] for row in record.rows if row["variant"] == "unpruned"}
    cells = [
        (
            row["traffic"],
            row["variant"],
            _rate(row["requests_median_per_second"], full[row["traffic"]]),
            f"{row['ttft_p50_median_seconds']:.2f} s",
            f"{row['ttft_p99_median_seconds']:.2f} s",
            f"{row['peak_blocks']} of {row['pool_blocks']}",
        )
        for row in sorted(record.rows, key=lambda row: row["traffic"])
    ]
    header = ("traffic", "server", "requests/s", "first token, p50", "first token, p99", "KV blocks used")
    config, machine = record.config, record.provenance["machine"]
    model = (
        f"{config['architecture']} with {config['num_layers']} decoder and {config['num_tower_layers']} tower layers"
    )
    share = config["encoder_seconds"] / config["prefill_seconds"]
    asked = (
        f"{config['pictures']} pictures, {config['text_tokens']} words and {config['output_tokens']} tokens of answer"
    )
    return (
        f"{markdown_table(header, cells, numbers_from=2)}\n\n{model}, random weights, {config['dtype']} (one picture's "
        f"encoder takes {share:.0%} of its unpruned prefill); a request of the image traffic has {asked}; "
        f"{config['concurrency']} at once, keep_ratio {config['keep_ratio']}, a pool of {config['pool_gib']} GiB. "
        f"Medians of {config['rounds']} rounds in turns by vLLM's bench client; {machine['processor']}, "
        f"{machine['num_cores']} cores for server and client."
    )


def soak_table(record: Record) -> str:
    """What each server answered, and how much its memory grew meanwhile."""
    asked = {row["server"]: row for row in record.rows if row["what"] == "requests"}
    held = {row["server"]: row for row in record.rows if row.get("process") == "all"}
    cells = [_soak_cells(row, held[server]) for server, row in asked.items()]
    header = ("server", "answered", "refused", "hung up", "anything else", "memory before", "after", "grew by")
    config, machine = record.config, record.provenance["machine"]
    right = next(row["alone_equal_reference"] for row in asked.values() if row["alone_equal_reference"] is not None)
    return (
        f"{markdown_table(header, cells, numbers_from=1)}\n\n{config['num_requests']} requests to each server, after "
        f"{config['num_warm_up_requests']} before memory was looked at; {config['concurrency']} at once. Answered: the "
        f"tokens that the same question gets alone; alone, the pruned server answered {right} of "
        f"{config['num_questions']} as a reference made by hand. Memory is the resident memory of all processes. "
        f"{config['model']}, keep_ratio {config['keep_ratio']}; vLLM {config['vllm']}, {machine['processor']}, "
        f"{machine['num_cores']} cores for server and client."
    )


def _soak_cells(asked: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[str, ...]:
    outcomes = dict(asked["outcomes"])
    answered = outcomes.pop("whole", 0) + outcomes.pop("streamed", 0)
    refused, hung_up = outcomes.pop("refused", 0), outcomes.pop("hung up", 0)
    counts = (answered, refused, hung_up, sum(outcomes.values()))
    start, end = held["start_bytes"], held["end_bytes"]
    memory = (f"{start / 1e6:.1f} MB", f"{end / 1e6:.1f} MB", f"{(end - start) / start:.2%}")
    return (asked["server"], *map(str, counts), *memory)
