"""What `divprune` shows in the terminal; every table fits 80 columns."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from divprune.cli.answering import Row
from divprune.cli.summary import Summary


def answers_table(rows: Sequence[Row]) -> Table:
    """Two lines a question, all visual tokens above and the kept ones below."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("question", ratio=4, min_width=18, overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("prefill", justify="right", no_wrap=True)
    table.add_column("selection", justify="right", no_wrap=True)
    table.add_column("answer", ratio=5, min_width=14, overflow="fold")
    for row in rows:
        _add_question(table, row)
    return table


def _add_question(table: Table, row: Row) -> None:
    names = Text(", ".join(medium.name for medium in row.ask.media), style="dim", overflow="ellipsis", no_wrap=True)
    question = _printable(row.ask.prompt)
    kept, total = Text(str(row.pruned.num_kept), style="bold"), str(row.pruned.num_visual_tokens)
    prefill, selection = seconds_text(row.prefill.median), seconds_text(row.selection_seconds)
    if row.prefill_unpruned is None or row.answer_unpruned is None:
        table.add_row(question, kept, prefill, selection, _printable(row.answer))
        table.add_row(names, f"of {total}", "", "", "", end_section=True)
        return
    style = "green" if row.same_answer else "yellow"
    table.add_row(question, total, seconds_text(row.prefill_unpruned.median), "", _printable(row.answer_unpruned))
    table.add_row(names, kept, prefill, selection, _printable(row.answer, style), end_section=True)


def _printable(text: str, style: str = "") -> Text:
    """A model may say anything, escape sequences for the terminal included."""
    return Text(
        "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text),
        style,
    )


def summary_text(summary: Summary) -> Text:
    """How much shorter, how much faster, how many answers stayed the same, and how many were right."""
    total = len(summary.rows)
    parts = [f"{summary.kept_share:.1%} of the visual tokens kept"]
    if summary.speedup is not None:
        parts.append(f"prefill {summary.speedup:.2f} x as fast")
        parts.append(f"same answer to {summary.num_same} of {total}")
    lines = ["; ".join(parts) + "."]
    if summary.answers_known and summary.compared:
        right, unpruned = summary.num_right, summary.num_right_unpruned
        lines.append(f"Right answers: {unpruned} of {total} from all tokens, {right} from the kept ones.")
    return Text("\n".join(lines), style="bold")


def seconds_text(seconds: float) -> str:
    """A duration with its unit, three figures at most."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table of texts, first column in bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, style="bold" if index == 0 else "", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
