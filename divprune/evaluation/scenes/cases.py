"""The rows of the scenes suite: every method at every keep ratio, at equal tokens and at equal FLOPs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from divprune.budget import Budget, budget
from divprune.config import Positions, Scope
from divprune.efficiency.flops import compare, prefill_flop
from divprune.efficiency.schedule import DropSchedule
from divprune.efficiency.shapes import ModelShape
from divprune.efficiency.workloads import Workload
from divprune.encoder_options import EncoderOption
from divprune.evaluation.matching import MATCHINGS, Matching, num_keep_at_equal_flops, settings_of
from divprune.evaluation.scenes.baselines import UNPRUNED, WITHOUT_PRUNING
from divprune.evaluation.scenes.bench import IMAGE_BENCH, SceneBench
from divprune.methods import Method, RandomTokens, available_methods, get_method
from divprune.methods.sparse_vlm import PUBLISHED

Calibrator = Callable[[float], Method]
"""A target, cost pruned / unpruned -> the method calibrated to it; ValueError if that is out of reach."""

_BASE_METHODS = ("divprune", "random", "uniform")
_THREE_LAYERS = "first_layer=1,second_layer=2,third_layer=3"
_FOR_FEW_LAYERS = {
    "vtw": ("vtw:layer=2",),
    "pyramiddrop": ("pyramiddrop:first_layer=1,layers_per_stage=1",),
    "sparsevlm": tuple(f"sparsevlm:tokens={tokens},{_THREE_LAYERS}" for tokens in PUBLISHED),
    "dart": ("dart:layer=1",),
    "pact": ("pact:layer=1",),
    "hiprune": ("hiprune:early_layer=2",),
    "vscan": ("vscan:early_layer=1",),
}
"""Methods whose default layers are some of 32, or 24 of the vision encoder, at about the same depth of the embedded
model's 4 and 5.

SparseVLM has a row for each of its paper's budgets."""


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: the method as `get_method` reads it, or what is done instead of pruning.
        matching: "tokens" if all methods are asked for equally many, "flops" if their prefill costs the same; None
            where the method says itself how much it keeps, and without pruning.
        keep_ratio: fraction of the visual tokens kept; at equal FLOPs, the one at which tokens dropped before the LLM
            cost the same; None where the method says it itself.
        num_keep: how many are asked of the method; None where it says so itself.
        flop_percent: cost of the prefill (Eq. 5 of the DivPrune paper) in percent of the unpruned one; None if that
            only shows when it runs.
        refusal: why it cannot run; None if nothing is known against it.
        given: the method, where its name does not tell all of it: it was calibrated, or is a baseline of the bench.
        positions: as for `prune`; None for the family's default.
        scope: as for `prune`; `num_keep` is that of a frame if each frame has a budget of its own.
        encoder: as for `prune`.
    """

    name: str
    matching: Matching | None = None
    keep_ratio: float | None = None
    num_keep: int | None = None
    flop_percent: float | None = None
    refusal: str | None = None
    given: Method | None = None
    positions: Positions | None = None
    scope: Scope = "item"
    encoder: EncoderOption | None = None

    @property
    def key(self) -> str:
        """What its answers depend on: rows with the same key are answered once."""
        name = self.name if self.given is None else repr(self.given)
        scope = None if self.scope == "item" else f"scope={self.scope}"
        encoder = self.encoder and f"encoder={self.encoder}"
        parts = (name, self.num_keep and f"num_keep={self.num_keep}", self.positions, scope, encoder)
        return " ".join(part for part in parts if part)

    @property
    def method(self) -> Method | None:
        """The method, None without pruning; ValueError for one that was refused a calibration."""
        if self.given is not None:
            return self.given
        return None if self.name in WITHOUT_PRUNING else get_method(self.name)


def numbered(case: Case, positions: Positions | None) -> Case:
    """Return a case with positions, if its method keeps tokens before the LLM."""
    method = None if case.refusal else case.method
    return case if method is None or method.layers else replace(case, positions=positions)


def every_method() -> list[str]:
    """Name every registered method, with parameters that suit the embedded model."""
    return [name for info in available_methods() for name in _FOR_FEW_LAYERS.get(info.name, (info.name,))]


def default_methods(bench: SceneBench = IMAGE_BENCH) -> list[str]:
    """Name what a bench compares by default: every method, or those for videos alone and what they must beat."""
    if bench.modality == "image":
        return every_method()
    for_videos = [info.name for info in available_methods() if info.modalities == ("video",)]
    return [
        *_BASE_METHODS,
        *bench.baselines,
        *(name for each in for_videos for name in _FOR_FEW_LAYERS.get(each, (each,))),
    ]


def suite_cases(
    names: Sequence[str],
    shape: ModelShape,
    workload: Workload,
    keep_ratios: Sequence[float] | None = None,
    matchings: Sequence[Matching] = MATCHINGS,
    calibrators: Mapping[str, Calibrator] | None = None,
    bench: SceneBench = IMAGE_BENCH,
) -> list[Case]:
    """List the rows, led by the unpruned one and the one with the image or video withheld.

    Args:
        names: the methods, as `get_method` reads them, or the bench's baselines.
        shape: of the model that answers.
        workload: its average prompt.
        keep_ratios: fractions of the visual tokens, in (0, 1]; None for the bench's own.
        matchings: what is made equal between methods.
        calibrators: by name, how methods are calibrated that cannot do without.
        bench: what is asked about.

    Raises:
        UnknownMethodError: there is no such method.
        ValueError: a parameter of a method or a keep ratio is out of range.
    """
    full, text = DropSchedule(workload.num_visual_tokens), workload.num_text_tokens
    words = prefill_flop(shape.language, text, DropSchedule(full.num_visual_tokens, ((0, 0),)), "paper")
    words_percent = 100 * words / prefill_flop(shape.language, text, full, "paper")
    cases = [
        Case(UNPRUNED, keep_ratio=1.0, flop_percent=100.0),
        Case(bench.withheld, keep_ratio=0.0, flop_percent=words_percent),
    ]
    keep_ratios = bench.keep_ratios if keep_ratios is None else keep_ratios
    for name in names:
        calibrator = (calibrators or {}).get(name)
        if calibrator is not None:
            cases += _calibrated_cases(name, calibrator, shape, workload, keep_ratios, matchings)
        else:
            cases += _Planner(name, shape, workload, bench).cases(keep_ratios, matchings)
    return cases


def _calibrated_cases(
    name: str,
    calibrator: Calibrator,
    shape: ModelShape,
    workload: Workload,
    keep_ratios: Sequence[float],
    matchings: Sequence[Matching],
) -> Iterator[Case]:
    """Calibrate a method for each row; how many tokens it keeps differs between layers, so only FLOPs can be equal."""
    for matching in matchings:
        for keep_ratio in keep_ratios:
            case = Case(name, matching, keep_ratio)
            if matching == "tokens":
                reason = (
                    "it is calibrated to FLOPs, and keeps a number of its own in each layer; compare at equal FLOPs"
                )
                yield replace(case, refusal=reason)
                continue
            target = compare(shape, [workload], RandomTokens(), Budget(keep_ratio), "paper").ratio
            try:
                method = calibrator(target)
            except ValueError as error:
                yield replace(case, refusal=str(error))
                continue
            cost = compare(shape, [workload], method, None, "paper").ratio
            yield replace(case, given=method, flop_percent=100 * cost)


class _Planner:
    """Finds the counts of one method."""

    def __init__(self, name: str, shape: ModelShape, workload: Workload, bench: SceneBench) -> None:
        self.shape, self.workload = shape, workload
        baseline = bench.baselines.get(name)
        self.method = get_method(name) if baseline is None else baseline.method
        scope: Scope = "item" if baseline is None else baseline.scope
        self.plain = Case(name, given=None if baseline is None else baseline.method, scope=scope)
        self.num_groups = bench.num_frames if scope == "frame" else 1

    def cases(self, keep_ratios: Sequence[float], matchings: Sequence[Matching]) -> Iterator[Case]:
        for setting in settings_of(self.method, keep_ratios, matchings):
            if setting is not None:
                matching, keep_ratio = setting
                yield self._tokens(keep_ratio) if matching == "tokens" else self._flops(keep_ratio)
            elif not self.method.takes_budget:
                given = self.method if self.method.calibrated_on else self.plain.given
                yield self._costed(replace(self.plain, given=given), None)
            else:
                yield self.plain

    def _tokens(self, keep_ratio: float) -> Case:
        return self._counted("tokens", keep_ratio, budget(self.workload.num_visual_tokens, keep_ratio=keep_ratio))

    def _flops(self, keep_ratio: float) -> Case:
        try:
            num_keep = num_keep_at_equal_flops(keep_ratio, self.shape, [self.workload], self.method)
        except ValueError as error:
            return replace(self.plain, matching="flops", keep_ratio=keep_ratio, refusal=str(error))
        return self._counted("flops", keep_ratio, num_keep)

    def _counted(self, matching: Matching, keep_ratio: float, num_keep: int) -> Case:
        of_group = max(1, num_keep // self.num_groups)
        case = replace(self.plain, matching=matching, keep_ratio=keep_ratio, num_keep=of_group)
        return self._costed(case, Budget(num_keep=of_group * self.num_groups))

    def _costed(self, case: Case, kept: Budget | None) -> Case:
        """Return the case with its cost, or refused if the model has no such layer."""
        try:
            cost = compare(self.shape, [self.workload], self.method, kept, "paper").ratio
            return replace(case, flop_percent=100 * cost)
        except ValueError as error:
            return replace(case, refusal=str(error))


def cost_percent(case: Case, mean_kept: float, shape: ModelShape, workload: Workload) -> float | None:
    """Return the cost of a case that has run and kept `mean_kept` tokens of an image, perhaps fewer than asked."""
    asked = case.num_keep
    if case.method is None or (asked is None and case.flop_percent is not None) or mean_kept == asked:
        return case.flop_percent
    kept = Budget(num_keep=max(1, round(mean_kept)))
    return 100 * compare(shape, [workload], case.method, kept, "paper").ratio
