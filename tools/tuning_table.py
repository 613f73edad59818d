"""The promises of `divprune tune` beside what came of them: `benchmarks.tuning`."""

from divprune.records import Record, seconds_text
from tools.markdown import markdown_table


def tuning_table(record: Record) -> str:
    """A line a set of scenes, and how many promises held."""
    config, cells, kept = record.config, [], 0
    promised = [row for row in record.rows if row["method"] is not None]
    for row in record.rows:
        share = f"{row['num_forwards'] / row['num_forwards_exhaustive']:.0%}"
        if row["method"] is None:
            cells.append((str(row["set"] + 1), "none", "", "", share))
            continue
        kept += row["realised_value"] <= config["tolerance"]
        realised = f"{row['realised_value']:.2%}"
        setting = f"`{row['method']}` {row['keep_ratio']:g}"
        cells.append((str(row["set"] + 1), setting, f"{row['promised_loss']:.2%}", realised, share))
    header = (
        "set",
        "chosen",
        "promised: loses at most",
        "lost on other scenes",
        "questions asked, of all settings x questions",
    )
    machine = record.provenance["machine"]
    about = (
        f"{kept} of {len(promised)} promises held (a loss of at most {config['tolerance']:.0%} with 95 % confidence). "
        f"Each set has {config['scenes']} scenes with {config['questions']} questions each; what is lost is measured "
        f"on {config['other_scenes']} other scenes. Embedded model; {machine['processor']}, one thread."
    )
    return f"{markdown_table(header, cells, numbers_from=2)}\n\n{about}"


def tuning_shape_table(record: Record) -> str:
    """What settings cost on a checkpoint of a large model's shape."""
    first, cells = record.rows[0], []
    for row in record.rows:
        name = f"`{row['method']}`" if row["keep_ratio"] is None else f"`{row['method']}` {row['keep_ratio']:g}"
        percents = ("" if row[each] is None else f"{100 * row[each]:.0f} %" for each in ("flop_ratio", "kv_ratio"))
        ratio = f"{row['ttft_seconds'] / first['ttft_seconds']:.2f}"
        cells.append((name, f"{row['visual_tokens']:.0f}", *percents, seconds_text(row["ttft_seconds"]), ratio))
    header = ("setting", "visual tokens", "prefill FLOPs", "KV bytes", "time to first token", "of unpruned")
    config, machine = record.config, record.provenance["machine"]
    about = (
        f"{config['questions']} questions, {config['num_encoder_passes']} images encoded, {config['num_forwards']} "
        f"pruned forwards, {config['seconds'] / 60:.0f} minutes in all; {config['dtype']}, {machine['processor']}, "
        f"{config['num_threads']} threads. Times are medians of three rounds in turns; the encoder is in them."
    )
    return f"{markdown_table(header, cells, numbers_from=1)}\n\n{about}"
