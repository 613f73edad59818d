"""What a search came to: the setting with its evidence, a table, what it means in words, and answers that changed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divprune.checkpoints import LoadedModel
from divprune.evaluation.runs import UNPRUNED
from divprune.evaluation.statistics import Estimate
from divprune.experiments.tuning.agreement import ComparedAnswer, agreement, kind_of, normalised
from divprune.experiments.tuning.asking import Asker
from divprune.experiments.tuning.costs import BLIND, Costs
from divprune.experiments.tuning.options import TuneOptions
from divprune.experiments.tuning.search import Confirmed, Found, PruningSetting, Search
from divprune.experiments.tuning.verdict import sentences_of
from divprune.huggingface import PruningReport
from divprune.huggingface.fingerprint import fingerprint
from divprune.media import Medium
from divprune.methods import RandomTokens
from divprune.progress import Progress
from divprune.records import provenance
from divprune.tuned_setting import TunedSetting

MOST_SHOWN = 24
"""Changed questions in the report."""


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that the chosen setting answers in other words than the unpruned model.

    Attributes:
        id: Of the question.
        prompt: What was asked.
        kind: What kind of question it is, by words in it.
        unpruned: The unpruned answer.
        pruned: The pruned answer.
        likelihood_change: Of the unpruned answer, in nats per token: pruned - unpruned.
        media: Its images, and `report` what was kept of them; None beyond the first `MOST_SHOWN`.
    """

    id: str
    prompt: str
    kind: str
    unpruned: str
    pruned: str
    likelihood_change: float
    media: tuple[Medium, ...] | None
    report: PruningReport | None


@dataclass(frozen=True)
class Tuned:
    """What came out.

    Attributes:
        setting: The setting that keeps the promise; None if none does.
        rows: Unpruned, blind, random and every setting that was looked at, ready for JSON.
        sentences: What it means.
        changed: Questions whose answers changed, the worst first.
        kinds: By kind of question: how many there are, and how many answers stayed the same.
        evidence: Everything, ready for JSON.
        loaded: The model.
        output: Where the setting is.
    """

    setting: TunedSetting | None
    rows: Sequence[dict[str, Any]]
    sentences: Sequence[str]
    changed: Sequence[ChangedQuestion]
    kinds: Sequence[dict[str, Any]]
    evidence: dict[str, Any]
    loaded: LoadedModel
    output: Path

    def as_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        chosen = None if self.setting is None else self.setting.arguments
        return {"setting": chosen, "sentences": list(self.sentences), "evidence": self.evidence}


def tuned(options: TuneOptions, asker: Asker, search: Search, costs: Costs, found: Found, progress: Progress) -> Tuned:
    """Gather the evidence: what answers changed, and what settings cost."""
    chosen = found.chosen
    best = chosen or (found.confirmed[-1] if found.confirmed else None)
    shown = None if best is None else best.setting
    own = [] if shown is None else _answered(asker, shown, search.confirming, progress)
    rows = _rows(asker, search, costs, found, shown, progress)
    evidence: dict[str, Any] = {
        "tolerance": options.tolerance,
        "confidence": options.confidence,
        "targets": options.targets,
        "num_questions": len(asker.questions),
        "num_choosing": len(search.choosing),
        "num_confirming": len(search.confirming),
        "num_forwards": asker.num_forwards,
        "num_forwards_exhaustive": len(options.methods) * len(options.keep_ratios) * len(asker.questions),
        "num_encoder_passes": asker.memory.num_passes,
        "seen_nats": search.questions.seen,
        "loss": None if best is None else asdict(best.loss),
        "against_random": None if found.against_random is None else asdict(found.against_random),
        "confirmed": [_confirmed(each) for each in found.confirmed],
        "rows": rows,
    }
    kinds, changed = _kinds(own), _changed(own, asker)
    if shown is not None:
        pairs = [
            ComparedAnswer(each.kind, each.unpruned, each.pruned, asker.questions[each.place].answers) for each in own
        ]
        evidence |= {"answers": agreement(pairs), "kinds": kinds}
    evidence["provenance"] = provenance()
    setting = None
    if chosen is not None:
        setting = TunedSetting(
            method=chosen.setting.method,
            keep_ratio=chosen.setting.keep_ratio,
            positions=options.positions,
            model=asker.loaded.name,
            fingerprint=fingerprint(asker.loaded.model),
            evidence=evidence,
        )
    sentences = sentences_of(options, found, evidence, rows)
    return Tuned(setting, rows, sentences, changed, kinds, evidence, asker.loaded, options.output)


@dataclass(frozen=True)
class _Answered:
    """A confirming question under a setting; `report` is that of an answer which changed."""

    place: int
    unpruned: str
    pruned: str
    likelihood_change: float
    kind: str
    report: PruningReport | None

    @property
    def is_same(self) -> bool:
        return normalised(self.unpruned) == normalised(self.pruned)


def _answered(asker: Asker, setting: PruningSetting, places: Sequence[int], progress: Progress) -> list[_Answered]:
    """Have answers written where they are not the unpruned model's own."""
    found = []
    with progress.counting("answers that change", len(places)) as advance:
        for place, judged in zip(places, asker.ask(setting, places, lambda _: None), strict=True):
            reference = asker.references[place]
            unpruned = asker.unpruned_answer(place)
            pruned, report = (unpruned, None) if judged.is_same else asker.answer(setting, place)
            change = judged.log_likelihood - reference.log_likelihood
            kind = kind_of(asker.questions[place].prompt)
            found.append(_Answered(place, unpruned, pruned, change, kind, report))
            advance(1)
    return found


def _rows(
    asker: Asker, search: Search, costs: Costs, found: Found, shown: PruningSetting | None, progress: Progress
) -> list[dict[str, Any]]:
    """One a way of asking: what is retained, how many answers stay, and what it costs."""
    losses = {each.setting: (each.loss, search.choosing[: each.num_questions]) for each in found.tried}
    losses |= {each.setting: (each.loss, search.confirming) for each in found.confirmed}
    if shown is not None and found.against_random is not None:
        against = PruningSetting(RandomTokens.name, shown.keep_ratio)
        losses[against] = (search.loss_of(against), search.confirming)
    settings = sorted(losses, key=lambda each: (each.method, each.keep_ratio))
    with progress.counting("time to first token", costs.num_timed_calls(len(settings))) as advance:
        times = costs.ttft_seconds(settings, lambda: advance(1))
    unpruned = costs.of(None)
    number = len(asker.questions)
    blind_same = sum(each.blind_is_same for each in asker.references.values()) / number
    rows = [
        _row(UNPRUNED, None, Estimate(0.0, 0.0, 0.0), number, 1.0) | _cost(costs, None, times[UNPRUNED].median),
        _row(BLIND, None, Estimate(1.0, 1.0, 1.0), number, blind_same)
        | {"visual_tokens": 0.0, "kv_bytes": None, "flop_ratio": None, "ttft_seconds": times[BLIND].median},
    ]
    for setting in settings:
        loss, asked = losses[setting]
        row = _row(setting.method, setting.keep_ratio, loss, len(asked), asker.share_same(setting, asked))
        rows.append(
            row | _cost(costs, setting, times[setting].median) | {"is_chosen": setting == shown and bool(found.chosen)}
        )
    full = unpruned.kv_bytes
    return [row | {"kv_ratio": None if row["kv_bytes"] is None else row["kv_bytes"] / full} for row in rows]


def _row(method: str, keep_ratio: float | None, loss: Estimate, asked: int, same: float) -> dict[str, Any]:
    return {
        "method": method,
        "keep_ratio": keep_ratio,
        "num_questions": asked,
        "retention": 1 - loss.value,
        "retention_low": 1 - loss.high,
        "retention_high": 1 - loss.low,
        "same_answers": same,
        "is_chosen": False,
    }


def _cost(costs: Costs, setting: PruningSetting | None, ttft: float) -> dict[str, Any]:
    own, full = costs.of(setting), costs.of(None)
    flop = None if own.flop is None or full.flop is None else own.flop / full.flop
    return {
        "visual_tokens": own.visual_tokens,
        "kv_bytes": own.kv_bytes,
        "flop_ratio": flop,
        "ttft_seconds": ttft,
    }


def _confirmed(each: Confirmed) -> dict[str, Any]:
    return asdict(each.setting) | {"loss": asdict(each.loss), "holds": each.holds, "num_needed": each.needed}


def _kinds(own: Sequence[_Answered]) -> list[dict[str, Any]]:
    totals = Counter(each.kind for each in own)
    same = Counter(each.kind for each in own if each.is_same)
    return [{"kind": kind, "num_questions": total, "num_same": same[kind]} for kind, total in totals.most_common()]


def _changed(own: Sequence[_Answered], asker: Asker) -> list[ChangedQuestion]:
    """Those whose answers changed, the least likely first; the first ones with their images."""
    worst = sorted((each for each in own if not each.is_same), key=lambda each: each.likelihood_change)
    return [
        ChangedQuestion(
            id=asker.questions[each.place].id,
            prompt=asker.questions[each.place].prompt,
            kind=each.kind,
            unpruned=each.unpruned,
            pruned=each.pruned,
            likelihood_change=each.likelihood_change,
            media=asker.media(each.place) if number < MOST_SHOWN else None,
            report=each.report if number < MOST_SHOWN else None,
        )
        for number, each in enumerate(worst)
    ]
