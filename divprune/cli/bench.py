"""`divprune bench`: times, memory and cache of every method in one run, next to the unpruned model."""

from collections.abc import Sequence
from typing import Any

from divprune.cli.bench_subject import (
    BenchOptions,
    Subject,
    check_bench_options,
    load_subject,
    peak_memory_of,
    variants,
)
from divprune.cli.failures import CommandError
from divprune.cli.screen import Screen, advance
from divprune.cli.tables import listing, seconds_text
from divprune.efficiency import Measurement, Variant, in_own_process, run_bench
from divprune.errors import DivpruneError
from divprune.records import Record, provenance

MEBI = 2**20


def bench(options: BenchOptions, screen: Screen) -> None:
    """Measure and print one row a method; with an output folder, write a record.

    Raises:
        CommandError: an option cannot work, or a method does not fit the model.
    """
    try:
        check_bench_options(options)
        rows = variants(options)
        origin = provenance()
        # Before the timing model is there: both together may not fit.
        peaks = _peaks(options, rows, screen) if options.memory else [None] * len(rows)
        with screen.working("building the model"):
            subject = load_subject(options)
        _fits(subject, rows)
        measurements = _measured(subject, rows, options, screen)
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    table = [
        measurement.as_row() | {"peak_memory_bytes": peak}
        for measurement, peak in zip(measurements, peaks, strict=True)
    ]
    screen.show(listing(HEADER, [_cells(row) for row in table]))
    screen.show(
        f"{options.title}: medians of {len(measurements[0].timings)} runs in turns; --json has the rest, p20 and p80."
    )
    config = _config(options, subject, measurements)
    if options.output is not None:
        record = Record(options.record_name, config, table, origin | {"machine": provenance()["machine"]})
        screen.show(f"Record: {record.save(options.output)}")
    screen.result({"model": options.title, "config": config, "rows": table})


def _peaks(options: BenchOptions, rows: Sequence[Variant], screen: Screen) -> list[int | None]:
    peaks: list[int | None] = []
    with screen.counting("peak memory", len(rows)) as progress:
        for index in range(len(rows)):
            peaks.append(in_own_process(peak_memory_of, options, index))
            advance(progress)
    return peaks


def _fits(subject: Subject, rows: Sequence[Variant]) -> None:
    """Let every method refuse the model before the first is measured."""
    for variant in rows:
        with variant.on(subject.model):
            pass


def _measured(subject: Subject, rows: Sequence[Variant], options: BenchOptions, screen: Screen) -> list[Measurement]:
    with screen.counting("measuring", len(rows) * (1 + options.repeats)) as progress:
        return run_bench(
            subject.model,
            subject.inputs,
            rows,
            num_new_tokens=options.new_tokens,
            repeats=options.repeats,
            max_seconds=options.max_seconds,
            after_call=lambda: advance(progress),
        )


def _config(options: BenchOptions, subject: Subject, measurements: Sequence[Measurement]) -> dict[str, Any]:
    budget = next((each.variant.budget for each in measurements if each.variant.budget is not None), None)
    return {
        "model": options.title,
        "weights": "checkpoint" if options.architecture is None else "random",
        "num_layers": subject.model.config.get_text_config().num_hidden_layers,
        "num_prompt_tokens": subject.inputs["input_ids"].shape[1],
        "keep_ratio": None if budget is None else budget.keep_ratio,
        "num_keep": None if budget is None else budget.num_keep,
        "num_new_tokens": options.new_tokens,
        "warm_up": 1,
        "repeats": len(measurements[0].timings),
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "device": subject.model.device.type,
    }


HEADER = ("method", "kept", "prefill", "TTFT", "tok/s", "select", "KV MiB", "peak MiB")


def _cells(row: dict[str, Any]) -> Sequence[str]:
    selection, peak = row.get("selection_median_seconds"), row["peak_memory_bytes"]
    return (
        row["method"],
        "all" if row["num_kept"] is None else str(row["num_kept"]),
        seconds_text(row["prefill_median_seconds"]),
        seconds_text(row["ttft_median_seconds"]),
        f"{row['decode_median_tokens_per_second']:.2f}",
        "" if selection is None else seconds_text(selection),
        f"{row['kv_cache_bytes'] / MEBI:.1f}",
        "" if peak is None else f"{peak / MEBI:.0f}",
    )
