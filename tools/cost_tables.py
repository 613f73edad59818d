"""Tables of what methods cost: `divprune bench`, `benchmarks.serving` and `benchmarks.soak`."""

from collections.abc import Mapping
from typing import Any

from divprune.efficiency.foreign_load import busy_note
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
    shown = f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
    return f"{shown} ({full_seconds / seconds:.2f} x)"


def _measured(record: Record) -> str:
    config, machine = record.config, record.provenance["machine"]
    model = f"{config['model']}, {config['num_layers']} decoder layers, {config['weights']} weights, {config['dtype']}"
    runs = f"medians of {config['repeats']} runs in turns after {config['warm_up']} to warm up"
    on_gpu = config["device"] == "cuda"
    hardware = machine["gpu"] if on_gpu else f"{machine['processor']}, {machine['num_threads']} threads"
    where = f"{hardware}, torch {record.provenance['versions']['torch']}"
    return (
        f"{model} on the {config['device']}; prompt of {config['num_prompt_tokens']} tokens; {runs}. Peak memory is of "
        f"a process for each method. {where}. {busy_note(config)}".rstrip()
    )


def serving_table(record: Record) -> str:
    """Throughput of each server under each load, when first tokens come, and what takes memory and time."""
    full = {_load(row): row["requests_median_per_second"] for row in record.rows if row["method"] == "unpruned"}
    order = {traffic: place for place, traffic in enumerate(("image", "video", "text"))}
    rows = sorted(record.rows, key=lambda row: (order[row["traffic"]], row["concurrency"]))
    cells = [_serving_cells(row, full[_load(row)]) for row in rows]
    header = (
        "traffic", "at once", "server", "keep ratio", "prompt", "requests/s", "first token, p50", "p99", "KV pool used",
        "in the encoder", "selection",
    )  # fmt: skip
    return f"{markdown_table(header, cells, numbers_from=3)}\n\n{_served(record)}"


def _load(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["traffic"], row["concurrency"]


def _serving_cells(row: Mapping[str, Any], full_rate: float) -> tuple[str, ...]:
    selection = row["selection_seconds_per_request"]
    return (
        row["traffic"],
        str(row["concurrency"]),
        row["method"],
        "" if row["keep_ratio"] is None else f"{row['keep_ratio']:g}",
        f"{row['prompt_tokens']:.0f}",
        _rate(row["requests_median_per_second"], full_rate),
        f"{row['ttft_p50_median_seconds']:.2f} s",
        f"{row['ttft_p99_median_seconds']:.2f} s",
        f"{row['peak_kv_usage']:.0%}",
        f"{row['encoder_fraction']:.0%}" if row["traffic"] != "text" else "",
        f"{1000 * selection:.1f} ms" if selection else "",
    )


def _served(record: Record) -> str:
    """What was served and asked, and how quiet the machine was."""
    config, machine = record.config, record.provenance["machine"]
    sizes = ", ".join(f"{width} x {height}" for width, height in config["image_sizes"])
    rounds = "One round" if config["rounds"] == 1 else f"Medians of {config['rounds']} rounds in turns"
    foreign_cores = max(row["max_foreign_cores"] for row in record.rows)
    return (
        f"{config['architecture']} with {config['num_layers']} decoder layers, {config['num_tower_layers']} of the "
        f"vision encoder and {config['num_words']:,} words, random weights, {config['dtype']} on the "
        f"{config['device']}. A request has {config['text_tokens']} words, an image ({sizes} in turns) or a video of "
        f"{config['video_frames']} frames or neither, and gets {config['output_tokens']} tokens; the KV pool holds "
        f"{config['pool_tokens']:,} tokens, prefix cache off. In the encoder: the part of the time that the engine "
        f"spends in vision encoder and projector, which pruning cannot save. vLLM's own video pruning: "
        f"{config['vllms_own_methods']}. {rounds}, {config['waves']} x as many requests as run at once in each; "
        f"vLLM {config['vllm']}, {machine['processor']}, {machine['num_cores']} cores for server and client, of which "
        f"other processes took {foreign_cores:.2f} at most."
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
