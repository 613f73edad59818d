"""What a reader wants to know first, out of records and printed numbers: README.md, docs/choose.md, docs/faq.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from divprune.efficiency import FlopsOptions, prefill_costs
from divprune.experiments.paper.columns import IMAGE_COLUMNS
from divprune.experiments.paper.printed import ABLATIONS, LLAVA_7B, TABLE1, PrintedRow
from divprune.huggingface import supported_families
from divprune.methods import DivPrune, MethodInfo, available_methods, bibliography
from divprune.methods.sparse_vlm import PUBLISHED
from divprune.records import Record, load_record
from tools.markdown import markdown_table
from tools.wins_and_losses import rows_at_equal_tokens, suite

RESULTS = Path(__file__).parent.parent / "results"
KEEP_RATIO = 0.098
SERVED_AT_ONCE = 32

Row = Mapping[str, Any]


def families_line() -> str:
    """How many model families are supported, and where they are listed."""
    number = len(supported_families())
    return f"{number} model families work with transformers: [find yours](docs/models.md), or `divprune families`."


def citation() -> str:
    """BibTeX of the paper."""
    return f"```bibtex\n{bibliography([DivPrune.paper])}\n```"


def headline_numbers() -> str:
    """Three numbers, each with its conditions: time to the first token, throughput, and the paper's accuracy."""
    return "\n".join(f"- {line}" for line in (_first_token(), _throughput(), _accuracy()))


def _first_token() -> str:
    record = load_record(RESULTS / "bench-llava-1.5-7b.json")
    config, machine = record.config, record.provenance["machine"]
    rows = {row["method"]: row for row in record.rows}
    before, after = (rows[name]["ttft_median_seconds"] for name in ("unpruned", "divprune"))
    cache = [rows[name]["kv_cache_bytes"] / 2**20 for name in ("unpruned", "divprune")]
    return (
        f"**First token {before / after:.1f} x as fast** ({before:.1f} s to {after:.1f} s) **and a KV cache of "
        f"{cache[1]:.0f} instead of {cache[0]:.0f} MiB**: LLaVA-1.5-7B's shape with {config['weights']} weights, "
        f"{rows['divprune']['num_kept']:.0f} of 576 visual tokens, {config['dtype']} on {machine['num_cores']} cores "
        f"of a CPU."
    )


def _throughput() -> str:
    record = load_record(RESULTS / "serving.json")
    config, num_cores = record.config, record.provenance["machine"]["num_cores"]
    asked = [row for row in record.rows if (row["traffic"], row["concurrency"]) == ("image", SERVED_AT_ONCE)]
    full = next(row for row in asked if row["method"] == "unpruned")
    pruned = next(row for row in asked if (row["method"], row["keep_ratio"]) == ("divprune", KEEP_RATIO))
    ratio = pruned["requests_median_per_second"] / full["requests_median_per_second"]
    return (
        f"**{ratio:.1f} x as many requests a second** from a vLLM server, {SERVED_AT_ONCE} at once with an image each, "
        f"{full['prompt_tokens']:.0f} tokens a prompt down to {pruned['prompt_tokens']:.0f}: the shape of "
        f"{config['architecture']} cut to {config['num_layers']} decoder layers, random weights, "
        f"{num_cores} cores of a CPU, one round."
    )


def _paper_row(label: str) -> PrintedRow:
    return next(row for row in TABLE1 if (row.model, row.label) == (LLAVA_7B, label))


def _accuracy() -> str:
    original, pruned = _paper_row("Original").values, _paper_row("DivPrune").values
    kept = fmean(pruned[key] / original[key] for key in original)
    return (
        f"**{100 * kept:.0f} % of the unpruned scores**, averaged over the eleven data sets of the paper's Table 1 "
        f"(LLaVA-1.5-7B, keep ratio {KEEP_RATIO}). These are the *paper's* numbers, not ours:"
    )


def paper_accuracy() -> str:
    """The paper's rows of the unpruned and the pruned 7B model, as printed."""
    header = ("as the paper prints it", *(column.title for column in IMAGE_COLUMNS))
    cells = [
        (
            label,
            *(
                f"{value:.0f}" if (value := _paper_row(row).values[column.key]) > 999 else f"{value:.2f}"
                for column in IMAGE_COLUMNS
            ),
        )
        for label, row in (("all 576 tokens", "Original"), ("56 tokens, DivPrune", "DivPrune"))
    ]
    return markdown_table(header, cells, numbers_from=1)


Wanted = Callable[[MethodInfo], bool]
QUESTIONS: tuple[tuple[str, str, float, Wanted], ...] = (
    ("images, any family, transformers or vLLM", "image", KEEP_RATIO, lambda info: _is_before(info) and not info.needs),
    ("fewer tokens, where the vision encoder is known", "image", 0.05, lambda info: _reads(info, "vision_attention")),
    ("fewer tokens for a known question, not in vLLM", "image", 0.05, lambda info: _reads(info, "text_embeddings")),
    ("to leave the first layers whole, not in vLLM", "image", 0.05, lambda info: "inside" in info.acts),
    ("videos", "video", 0.1, lambda info: info.modalities == ("video",)),
)
"""What somebody wants, on what it is measured and at which keep ratio, and the methods to choose from."""


def _is_before(info: MethodInfo) -> bool:
    return info.acts == "before the LLM"


def _reads(info: MethodInfo, need: str) -> bool:
    return _is_before(info) and need in info.needs


def which_method(folder: str) -> str:
    """Five rows: what somebody wants, and the method with the best record for it.

    Args:
        folder: where the methods' pages are, as the page of the table links to them.
    """
    infos = {info.name: info for info in available_methods()}
    cells = []
    for wanted, modality, keep_ratio, fits in QUESTIONS:
        record = suite(modality)
        able = [name for name, info in infos.items() if fits(info) and _at(record, name, keep_ratio)]
        best = max(able, key=lambda name: _at(record, name, keep_ratio)["mean_percent"])
        row, random = _at(record, best, keep_ratio), _at(record, "random", keep_ratio)
        tokens = f"{row['num_kept']:.0f} of {record.rows[0]['num_kept']:.0f}, {row['flop_percent']:.0f} % of the FLOPs"
        scores = (f"{each['mean_percent']:.1f}" for each in (row, random, record.rows[0]))
        cells.append((wanted, f"[`{best}`]({folder}/{best}.md)", tokens, *scores))
    header = ("you want", "take", "tokens kept", "right", "random", "unpruned")
    return markdown_table(header, cells, numbers_from=3)


def _at(record: Record, method: str, keep_ratio: float) -> Row | None:
    rows = rows_at_equal_tokens(record, method)
    return next((row for row in rows if row["keep_ratio"] == keep_ratio), None)


def random_table() -> str:
    """Random tokens beside diverse and alike ones: as the paper prints it, and on the scenes."""
    printed = {row.label: row.values["mean"] for row in ABLATIONS}
    names = {"DivPrune": ("cosine", "divprune"), "random tokens": ("random tokens", "random")}
    names |= {"the least diverse": ("min-max", "minmax")}
    cells = [
        (words, f"{printed[label]:.2f}", f"{_at(suite('image'), method, KEEP_RATIO)['mean_percent']:.1f}")
        for words, (label, method) in names.items()
    ]
    return markdown_table(
        ("kept", "the paper's mean of four data sets, 56 of 576 tokens", "generated scenes, 25 of 256"),
        cells,
        numbers_from=1,
    )


def flop_table() -> str:
    """The FLOP ratios that 0.098 of the tokens come to."""
    rows = prefill_costs(FlopsOptions()).rows
    cells = [(row["model"], f"{row['keep_ratio']:g}", f"{row['ratio_percent']:.2f} %") for row in rows]
    return markdown_table(("model", "keep ratio", "FLOPs of the prefill"), cells, numbers_from=1)


def sparsevlm_table() -> str:
    """The published budgets of SparseVLM, and the tokens that a layer sees on average as it is executed."""
    cells = []
    for tokens, counts in PUBLISHED.items():
        (row,) = prefill_costs(FlopsOptions("llava-1.5-7b", method=f"sparsevlm:tokens={tokens}")).rows
        cells.append((str(tokens), ", ".join(map(str, counts)), f"{row['tokens_per_layer']:.4g}"))
    return markdown_table(("budget", "kept by score at three layers", "a layer sees"), cells, numbers_from=2)
