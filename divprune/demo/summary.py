"""Sum up the numbers over all questions of a run, for the terminal and for the report."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from divprune.demo.answering import AnswerPair


@dataclass(frozen=True)
class Summary:
    """The numbers over all questions; `title` says how much was kept, where there are several."""

    rows: Sequence[AnswerPair]
    title: str = ""

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens before pruning."""
        return sum(row.pruned.num_visual_tokens for row in self.rows)

    @property
    def num_encoded(self) -> int:
        """Visual tokens that the encoder made; fewer with an encoder option alone."""
        return sum(row.pruned.num_encoded for row in self.rows)

    @property
    def num_kept(self) -> int:
        """Visual tokens after pruning."""
        return sum(row.pruned.num_kept for row in self.rows)

    @property
    def kept_fraction(self) -> float:
        """Fraction of the visual tokens that was kept, in (0, 1]."""
        return self.num_kept / self.num_visual_tokens

    @property
    def tokens_per_prompt(self) -> str:
        """As in "256 → 25", with a range where prompts differ; "256 → 144 → 25" where an option encoded fewer."""
        counts = [[row.pruned.num_visual_tokens for row in self.rows], [row.pruned.num_kept for row in self.rows]]
        if self.num_encoded < self.num_visual_tokens:
            counts.insert(1, [row.pruned.num_encoded for row in self.rows])
        return " → ".join(map(_range, counts))

    @property
    def compared(self) -> bool:
        """Whether the model also answered from all tokens."""
        return self.rows[0].answer_unpruned is not None

    @cached_property
    def speedup(self) -> float | None:
        """Median over the questions of unpruned over pruned prefill time; None without comparison."""
        pairs = [(row.prefill_unpruned, row.prefill) for row in self.rows]
        ratios = [unpruned.median / pruned.median for unpruned, pruned in pairs if unpruned is not None]
        return statistics.median(ratios) if ratios else None

    @property
    def num_same(self) -> int:
        """Answers that pruning did not change."""
        return sum(row.same_answer for row in self.rows)

    @property
    def answers_known(self) -> bool:
        """Whether the right answers are known."""
        return all(row.example.expected is not None for row in self.rows)

    @property
    def num_right(self) -> int:
        """Right answers from the kept tokens."""
        return sum(row.is_right(row.answer) for row in self.rows)

    @property
    def beside_random(self) -> bool:
        """Whether the model also answered every question from random tokens."""
        return all(row.answer_random is not None for row in self.rows)

    @property
    def num_right_random(self) -> int:
        """Right answers from random tokens of the same number."""
        return sum(row.is_right(row.answer_random) for row in self.rows)

    def views(self, title: str) -> "list[Summary]":
        """Return the summary of each number of tokens, this one first; times are of this one.

        Args:
            title: how much is kept here, in words.
        """
        kept = zip(*(row.kept(title) for row in self.rows), strict=True)
        return [
            Summary(
                [
                    replace(row, answer=view.answer, pruned=view.pruned, answer_random=view.answer_random)
                    for row, view in zip(self.rows, of_rows, strict=True)
                ],
                of_rows[0].title,
            )
            for of_rows in kept
        ]

    @property
    def num_right_unpruned(self) -> int:
        """Right answers from all tokens."""
        return sum(row.is_right(row.answer_unpruned) for row in self.rows)


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"
