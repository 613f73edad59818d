"""Markdown out of rows."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int) -> str:
    """A table whose columns from `numbers_from` on are set to the right."""
    rule = ["---" if column < numbers_from else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
