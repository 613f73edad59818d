"""A comparison with the paper in words: the same runs for the terminal and for Markdown."""

from collections.abc import Iterator, Sequence

from divprune.evaluation.statistics import Estimate
from divprune.experiments.comparison import INCOMPLETE, Compared, Result
from divprune.experiments.paper.columns import MEAN, Column
from divprune.fidelity import FIDELITY_LEGEND

FIRST_COLUMN = "data set"
"""Before the others in Markdown; tells a table of ours from other pages."""
HEADER = ("row", "ours, 95 %", "paper", "diff.", "against unpruned", "p", "kept")
LEGEND = (
    "ours, 95 %: bootstrap over the questions. diff.: ours - paper. against unpruned: the difference from our own "
    "unpruned model, paired on the same questions, with its interval and the p-value of McNemar's exact test, or of a "
    "permutation test where answers are not just right or wrong. kept: fraction of the unpruned score. Methods: "
    + FIDELITY_LEGEND
)


def sections(compared: Compared, is_short: bool = False) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Yield each column's heading and its lines, one a row of the table.

    Args:
        compared: a table on one model.
        is_short: whether lines must fit 80 columns: a digit less, and no interval of what is kept.
    """
    groups: dict[Column, list[Result]] = {}
    for result in compared.results:
        groups.setdefault(result.entry.column, []).append(result)
    for column, results in groups.items():
        yield column.title, [_line(result, is_short) for result in results]
    if compared.shares and all(column.data_set != MEAN for column in groups):
        titles = {result.entry.row.label: result.entry.row.title for result in compared.results}
        shares = compared.shares.items()
        yield "all data sets", [(titles[label], "", "", "", "", "", _kept(share, is_short)) for label, share in shares]


def markdown(compared: Compared) -> str:
    """Return one Markdown table, in which every line names its data set."""
    lines = [(FIRST_COLUMN, *HEADER), ("---", "---", *("---:",) * (len(HEADER) - 1))]
    for title, found in sections(compared):
        lines += [(title, *line) for line in found]
    notes = [*(f"- {line}" for line in (*shortfalls(compared), *reasons(compared))), "", LEGEND]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n" + "\n".join(notes) + "\n"


def _line(result: Result, is_short: bool) -> Sequence[str]:
    column, printed, label = result.entry.column, result.entry.printed, result.entry.row.title
    paper = "" if printed is None else f"{printed:.{column.digits}f}"
    if result.value is None:
        return (label, _short(result.missing), paper, "", "", "", "")
    digits = 1 if is_short and column.digits == 2 and column.percent == 1 else column.digits
    own, against, difference = result.interval, result.against, result.difference
    return (
        label,
        _number(result.value, own, digits, is_short),
        paper,
        "" if difference is None else f"{difference:+.{digits}f}",
        "" if against is None else _number(against.difference.value, against.difference, digits, is_short, "+"),
        "" if against is None else _p_value(against.p_value),
        _kept(result.share_kept, is_short),
    )


def _short(missing: str | None) -> str:
    """Return the reason in a word or two; the whole of it stands below the table."""
    return "incomplete" if missing is not None and missing.startswith(INCOMPLETE) else (missing or "").partition(":")[0]


def reasons(compared: Compared) -> list[str]:
    """Say why numbers are missing; a line a reason."""
    found: dict[str, dict[str, None]] = {}
    for result in compared.results:
        if result.missing is not None:
            found.setdefault(result.missing, {})[result.entry.row.label] = None
    return [f"{reason}: {', '.join(labels)}" for reason, labels in found.items()]


def shortfalls(compared: Compared) -> list[str]:
    """Say which numbers rest on fewer samples than the paper's; a line a number of samples."""
    found: dict[int, dict[str, None]] = {}
    for result in compared.results:
        column, count = result.entry.column, result.num_samples
        if result.value is None or count is None or not column.is_papers:
            continue
        if count < column.source.num_samples:
            found.setdefault(count, {})[f"{column.title} ({column.source.num_samples:,})"] = None
    return [f"only {count:,} samples, where the paper has: {', '.join(titles)}" for count, titles in found.items()]


def _number(value: float, around: Estimate | None, digits: int, is_short: bool, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}"
    between = "," if is_short else " to "
    return text if around is None else f"{text} ({around.low:{sign}.{digits}f}{between}{around.high:{sign}.{digits}f})"


def _p_value(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _kept(share: Estimate | None, is_short: bool) -> str:
    if share is None:
        return ""
    text = f"{100 * share.value:.1f}%" if is_short else f"{100 * share.value:.1f} %"
    is_exact = is_short or share.low == share.high
    return text if is_exact else f"{text} ({100 * share.low:.1f} to {100 * share.high:.1f})"
