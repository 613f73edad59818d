"""Tables of encoder options: what they save, and what they cost in accuracy."""

from divprune.records import Record, seconds_text
from tools.markdown import markdown_table


def encoder_time_table(record: Record) -> str:
    """The time to the first token, taken apart."""
    full, cells = record.rows[0]["ttft_median_seconds"], []
    for row in record.rows:
        parts = ("encoding_median_seconds", "selection_median_seconds", "prefill_median_seconds")
        first, low, high = (row[f"ttft_{which}_seconds"] for which in ("median", "p20", "p80"))
        cells.append(
            (
                f"`{row['method']}`",
                *("all" if row[name] is None else str(row[name]) for name in ("num_encoded", "num_kept")),
                *("" if name not in row else seconds_text(row[name]) for name in parts),
                f"{seconds_text(first)} ({seconds_text(low)} to {seconds_text(high)})",
                f"{full / first:.2f} x",
            )
        )
    header = ("setting", "encoded", "kept", "encoder", "selection", "prefill", "first token (p20 to p80)", "as fast")
    config, machine = record.config, record.provenance["machine"]
    about = (
        f"{config['model']}, {config['num_layers']} decoder layers, weights {config['weights']}; {config['dtype']} on "
        f"the {config['device']}, prompt of {config['num_prompt_tokens']} tokens; medians of {config['repeats']} runs "
        f"in turns. {machine['processor']}, {machine['num_threads']} threads, "
        f"torch {record.provenance['versions']['torch']}."
    )
    return f"{markdown_table(header, cells, numbers_from=1)}\n\n{about}"


def encoder_scenes_table(record: Record) -> str:
    """Answers about scenes, with as many tokens of a whole encoder beside each option."""
    cells = [
        (
            f"`{row['method']}`" if row["num_kept"] else row["method"],
            f"`{row['encoder']}`" if row["encoder"] else "",
            str(row["num_encoded"]),
            f"{row['num_kept']:.0f}",
            f"{row['mean_percent']:.1f} ({row['mean_low_percent']:.1f} to {row['mean_high_percent']:.1f})",
        )
        for row in record.rows
    ]
    header = ("method", "encoder", "encoded", "kept", "right answers, %")
    config = record.config
    about = (
        f"Embedded model, {config['num_scenes']} held-out scenes, {config['num_visual_tokens']} visual tokens; means "
        "over the kinds of questions, with the interval that other scenes of the kind would give (95 %)."
    )
    return f"{markdown_table(header, cells, numbers_from=2)}\n\n{about}"


def encoder_dedup_table(record: Record) -> str:
    """What is left to encode of each kind of image, by model, and how many answers of small models are equal."""
    counted = [row for row in record.rows if "num_visual_tokens" in row]
    answered = [row for row in record.rows if "num_equal_answers" in row]
    shapes, tolerances = (sorted({row[name] for row in counted}) for name in ("architecture", "tolerance"))
    tolerances = tolerances[:2]
    cells = []
    for kind in dict.fromkeys(row["kind"] for row in counted):
        own = {(row["architecture"], row["tolerance"]): row for row in counted if row["kind"] == kind}
        left = [f"{100 * own[shape, each]['fraction_encoded']:.0f}" for shape in shapes for each in tolerances]
        asked = [row for row in answered if row["kind"] == kind]
        equal, total = (sum(row[name] for row in asked) for name in ("num_equal_answers", "num_images"))
        fractions = [row["fraction_encoded"] for row in asked]
        shown = f"{100 * min(fractions):.0f} to {100 * max(fractions):.0f}" if asked else ""
        cells.append((kind, *left, shown, f"{equal} of {total}" if asked else ""))
    header = (
        "image",
        *(f"{shape}, tolerance {each:g}: encoded, %" for shape in shapes for each in tolerances),
        "asked about: encoded, %",
        "equal answers",
    )
    about = (
        "Means over seeds, of float32 pixels; the tolerance is of their values as the processor normalises them. "
        "Answers: small models of each family with random weights, about a smaller version of the image, from all that "
        "is left at tolerance 0. They are equal wherever nothing repeats; elsewhere they need not be: attention in the "
        "encoder counted each of n equal patches at a place of its own, and counts one."
    )
    return f"{markdown_table(header, cells, numbers_from=1)}\n\n{about}"
