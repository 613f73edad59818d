"""The promises of `divprune tune` beside what came of them: `benchmarks.tuning`."""

from divprune.records import Record
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
