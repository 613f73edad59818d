"""Tables about the paper's experiments: what they cost to run, and our runs beside the printed ones."""

from collections.abc import Iterator
from pathlib import Path

from divprune.evaluation.results import Results
from divprune.experiments.comparison import compared
from divprune.experiments.comparison_text import markdown
from divprune.experiments.costs import GPUS, plan, total_hours, usual_throughput
from divprune.experiments.paper.presets import PRESETS, entries, get_preset, runs
from divprune.experiments.subjects import paper_subject
from tools.markdown import markdown_table

PETA = 1e15


def plan_table() -> str:
    """One line a table and model: what `divprune reproduce NAME --dry-run` adds up to."""
    header = ("table", "model", "runs", "answers", "judge calls", "PFLOP", *(f"{gpu.name} hours" for gpu in GPUS))
    return markdown_table(header, _plan_lines(), numbers_from=2)


def _plan_lines() -> Iterator[tuple[str, ...]]:
    seen: set[str] = set()
    for preset in PRESETS:
        for architecture in preset.architectures:
            subject = paper_subject(architecture)
            own = [each for each in plan(entries(preset, subject)) if each.run.name not in seen]
            seen.update(each.run.name for each in own)
            calls = sum(each.work.num_judge_calls for each in own)
            yield (
                f"`{preset.name}`",
                subject.title,
                str(len(own)),
                f"{sum(each.work.num_samples for each in own):,}",
                f"{calls:,}" if calls else "",
                f"{sum(each.total_flop for each in own) / PETA:,.0f}",
                *(f"{total_hours(own, usual_throughput(gpu)):.1f}" for gpu in GPUS),
            )


def reproduced_table(name: str, folder: Path) -> str:
    """A table of the paper with our numbers, from the records in a folder."""
    preset, results, parts = get_preset(name), Results(folder), []
    for architecture in preset.architectures:
        subject = paper_subject(architecture)
        listed = entries(preset, subject)
        if any(results.record(run) is not None for run in runs(listed)):
            parts.append(f"#### {preset.title}, {subject.title}\n\n{markdown(compared(listed, results)).rstrip()}")
    return "\n\n".join(parts) or "*Not measured yet.*"
