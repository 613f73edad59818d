"""Operations of one prompt under one setting, exactly where the language model's layers are known."""

from functools import cached_property
from typing import TYPE_CHECKING

from divprune.evaluation.cells import UNPRUNED
from divprune.experiments.paper.settings import Setting
from divprune.experiments.subjects import Subject

if TYPE_CHECKING:
    from divprune.budget import Budget
    from divprune.efficiency.flops import Accounting
    from divprune.efficiency.schedule import DropSchedule
    from divprune.efficiency.workloads import Workload
    from divprune.methods import Method


class PromptCosts:
    """Exact operations, or twice the multiply-accumulates of Eq. 5 for decoders that the exact count does not know.

    Attributes:
        assumption: what they take for granted; None for nothing.
    """

    def __init__(self, subject: Subject, setting: Setting, prompt: "Workload") -> None:
        """Prepare.

        Args:
            subject: the model.
            setting: method and budget; the unpruned model's cache is counted where only a recipe tells more.
            prompt: text and visual tokens.

        Raises:
            ValueError: there is no such method, or it does not fit the model.
        """
        from divprune.efficiency.shapes import GATED_DECODERS
        from divprune.methods import RandomTokens, get_method

        self._shape, self._prompt, self._known_ratio = subject.shape, prompt, setting.flop_ratio
        self._is_exact = subject.shape.language.model_type in GATED_DECODERS
        self.assumption: str | None = None
        is_whole = setting.method == UNPRUNED or setting.flop_ratio is not None
        self._method: Method = RandomTokens() if is_whole else get_method(setting.method)
        self._share, self._count = (1.0, None) if is_whole else (setting.keep_ratio, setting.num_keep)
        if self._method.count == "adaptive" and self._share is None and self._count is None:
            self._share = subject.keep_ratio
            self.assumption = f"finds its own number of tokens; counted as {self._share:g} of them"

    @cached_property
    def _budget(self) -> "Budget | None":
        from divprune.budget import Budget

        return None if self._method.count == "schedule" else Budget(self._share, self._count)

    @cached_property
    def _schedule(self) -> "DropSchedule":
        from divprune.efficiency.schedule import schedule_of

        return schedule_of(self._method, self._budget, self._prompt.num_visual_tokens)

    def prefill_flop(self) -> float:
        """Return the operations until the first token: encoder, selection, language model."""
        from divprune.efficiency.flops import compare

        accounting: Accounting = "exact" if self._is_exact else "paper"
        factor = 1.0 if self._is_exact else 2.0
        cost = compare(self._shape, [self._prompt], self._method, self._budget, accounting)
        if self._known_ratio is None:
            return factor * cost.pruned_flop
        encoder = cost.encoder_flop or 0.0
        return factor * (encoder + self._known_ratio * (cost.full_flop - encoder))

    def decode_flop(self, num_new_tokens: int) -> float:
        """Return the operations of the tokens after the first."""
        from divprune.efficiency.decoding import decode_flop

        if not self._is_exact:
            return 2.0 * self.num_weights() * (num_new_tokens - 1)
        return decode_flop(self._shape.language, self._prompt.num_text_tokens, self._schedule, num_new_tokens)

    def num_weights(self) -> int:
        """Return the weights that each token is multiplied with."""
        from divprune.efficiency.decoding import num_weights

        language = self._shape.language
        if self._is_exact:
            return num_weights(language)
        return language.num_layers * language.hidden_size * (4 * language.hidden_size + 3 * language.intermediate_size)
