"""What a search came to, in words."""

from collections.abc import Sequence
from typing import Any

from divprune.experiments.tuning.options import TuneOptions
from divprune.experiments.tuning.search import Confirmed, Found
from divprune.methods import RandomTokens


def sentences_of(
    options: TuneOptions, found: Found, evidence: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """Say what was found, what is promised, and whether the method buys anything."""
    chosen, sentences = found.chosen, []
    if chosen is not None:
        loss, number, name = chosen.loss, evidence["num_confirming"], _named(chosen)
        row = next(row for row in rows if row["is_chosen"])
        sentences.append(
            f"{name} loses {loss.value:.1%} of what images tell the model, at most {loss.high:.1%} with "
            f"{options.confidence:.0%} confidence ({number} questions that no choice was made by); "
            f"{row['visual_tokens']:.0f} of {rows[0]['visual_tokens']:.0f} visual tokens stay."
        )
        if found.has_target and not chosen.holds:
            sentences.append(
                f"That may be more than the tolerance of {options.tolerance:.1%}: the cost was what mattered."
            )
    elif found.confirmed:
        sentences.append(_not_confirmed(options, found, evidence))
    else:
        sentences.append(
            f"Nothing qualifies: every setting, up to a keep ratio of {max(options.keep_ratios):g}, loses more than "
            f"{options.tolerance:.1%}. Allow a larger `tolerance`, other `methods` or larger `keep_ratios`."
        )
    against = found.against_random
    if against is not None and against.high >= 0 and chosen is not None:
        sentences.append(
            f"Random tokens of the same number do as well here (the loss differs by {against.value:+.1%}, between "
            f"{against.low:+.1%} and {against.high:+.1%}): the method buys nothing on these questions."
        )
    elif against is not None and chosen is not None:
        sentences.append(f"Random tokens of the same number lose {-against.value:.1%} more.")
    if chosen is not None and chosen.setting.method.partition(":")[0] == RandomTokens.name:
        sentences.append(
            "The cheapest setting that keeps the promise takes random tokens: no method buys anything here."
        )
    return sentences


def _not_confirmed(options: TuneOptions, found: Found, evidence: dict[str, Any]) -> str:
    last = found.confirmed[-1]
    name = _named(last)
    if last.needed is None:
        return (
            f"Nothing qualifies: {name} did on the questions that were chosen by, and loses {last.loss.value:.1%} on "
            f"the {evidence['num_confirming']} others. Allow a larger `tolerance`, or give more questions."
        )
    more = max(
        0, round(last.needed * evidence["num_questions"] / evidence["num_confirming"]) - evidence["num_questions"]
    )
    return (
        f"Too few questions to tell: {name} loses {last.loss.value:.1%}, but it may be {last.loss.high:.1%}. About "
        f"{more} more questions like these would show that it is within {options.tolerance:.1%}."
    )


def _named(confirmed: Confirmed) -> str:
    return f"{confirmed.setting.method} at keep ratio {confirmed.setting.keep_ratio:g}"
