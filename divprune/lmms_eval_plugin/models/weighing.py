"""Log-likelihoods on their way through lmms-eval."""

from typing import Any

from lmms_eval.api.instance import GenerationResult


def weighed(loss: float, is_greedy: bool) -> GenerationResult:
    """Wrap what a continuation weighs.

    lmms-eval 0.7.3 turns a plain tuple into its text, and then finds no numbers in it; what a result holds it leaves.
    """
    pair: Any = (loss, is_greedy)
    return GenerationResult(pair)
