"""A comparison with the paper in words: the same cells for the terminal and for Markdown."""

from collections.abc import Iterator, Sequence

from divprune.evaluation.statistics import Estimate
from divprune.paper.columns import MEAN, Column
from divprune.paper.comparison import REFERENCE, Compared, Result

HEADER = ("row", "ours, 95 %", "paper", "diff.", "against unpruned", "p", "kept")
LEGEND = (
    "ours, 95 %: bootstrap over the questions. diff.: ours - paper. against unpruned: the difference from our own "
    "unpruned model, paired on the same questions, with its interval and the p-value of McNemar's exact test, or of a "
    "permutation test where answers are not just right or wrong. kept: share of the unpruned score."
)


def sections(compared: Compared) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Yield each column's heading and its lines, one a row of the table."""
    groups: dict[Column, list[Result]] = {}
    for result in compared.results:
        groups.setdefault(result.entry.column, []).append(result)
    for column, results in groups.items():
        yield column.title, [_line(result) for result in results]
    if compared.shares and all(column.data_set != MEAN for column in groups):
        shares = compared.shares.items()
        yield "all data sets", [(label, "", "", "", "", "", _kept(share)) for label, share in shares]


def markdown(compared: Compared) -> str:
    """Return one Markdown table, in which every line names its data set."""
    lines = [("data set", *HEADER), ("---", "---", *("---:",) * (len(HEADER) - 1))]
    for title, found in sections(compared):
        lines += [(title, *line) for line in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{LEGEND}\n"


def _line(result: Result) -> Sequence[str]:
    digits, printed = result.entry.column.digits, result.entry.printed
    paper = "" if printed is None else f"{printed:.{digits}f}"
    label = result.entry.row.label
    if result.value is None:
        return (label, _short(result.missing), paper, "", "", "", "")
    own, against = result.interval, result.against
    return (
        label,
        _number(result.value, own, digits),
        paper,
        "" if result.difference is None else f"{result.difference:+.{digits}f}",
        "" if against is None else _number(against.difference.value, against.difference, digits, "+"),
        "" if against is None else _p_value(against.p_value),
        _kept(result.share_kept),
    )


def _short(missing: str | None) -> str:
    """The reason in a word or two; the whole of it stands below the table."""
    text = missing or ""
    return text if text == REFERENCE or len(text) <= 14 else text.partition(":")[0]


def reasons(compared: Compared) -> list[str]:
    """Say why numbers are missing; a line a reason."""
    found: dict[str, dict[str, None]] = {}
    for result in compared.results:
        if result.missing is not None:
            found.setdefault(result.missing, {})[result.entry.row.label] = None
    return [f"{reason}: {', '.join(labels)}" for reason, labels in found.items()]


def _number(value: float, around: Estimate | None, digits: int, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}"
    return text if around is None else f"{text} ({around.low:{sign}.{digits}f} to {around.high:{sign}.{digits}f})"


def _p_value(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _kept(share: Estimate | None) -> str:
    if share is None:
        return ""
    text = f"{100 * share.value:.1f} %"
    return text if share.low == share.high else f"{text} ({100 * share.low:.0f} to {100 * share.high:.0f})"
