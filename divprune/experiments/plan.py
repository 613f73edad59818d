"""Plan a comparison on data sets: each method at each keep ratio, at equal tokens or at equal FLOPs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from divprune.budget import Budget, budget
from divprune.checkpoints import EMBEDDED
from divprune.config import Newlines, Positions, Scope
from divprune.errors import ArgumentError, argument_errors
from divprune.evaluation.datasets import DATA_SETS, IMAGE_SETS, VIDEO_SETS
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.matching import MATCHINGS, Matching, settings_of
from divprune.evaluation.runs import UNPRUNED, EvaluationRun
from divprune.evaluation.scenes.bench import BENCHES
from divprune.experiments.paper.settings import at_equal_flops
from divprune.experiments.subjects import CHECKPOINTS, KEEP_RATIO, Subject, architecture_of, subject_of
from divprune.methods import get_method
from divprune.methods.item_context import Modality

SUITES = {"paper-image": IMAGE_SETS, "paper-video": VIDEO_SETS, "paper": DATA_SETS}
AS_IN_LMMS_EVAL = "lmms:"
"""Before a name: lmms-eval's own task, where one of the paper's data sets is called so too."""
DEFAULT_METHODS = ("divprune", "random")

Equal = Literal["tokens", "flops", "both"]


@dataclass(frozen=True)
class SuiteOptions:
    """What is compared, and how.

    Attributes:
        suite: data sets of the paper by key and tasks of lmms-eval, separated by spaces, or "paper-image",
            "paper-video" or "paper".
        model: checkpoint directory or hub name, or "embedded"; None for the served one.
        methods: as `get_method` reads them; None for divprune and random. The unpruned model always runs.
        keep_ratios: fractions of the visual tokens kept, in (0, 1]; None for the paper's.
        num_keeps: numbers of them instead, of each image (each tile under `scope` "tile") or video.
        scope: as for `prune`.
        newlines: as for `prune`.
        equal: what is made equal between methods; None for tokens.
        positions: of tokens that are kept before the LLM, as for `prune`; with "compact", the paper's numbers stand
            beside.
        visual_tokens: of an image, where equal FLOPs cannot tell.
        harness: how lmms-eval runs them, and where records go.
    """

    suite: str
    model: str | None = None
    methods: tuple[str, ...] | None = None
    keep_ratios: tuple[float, ...] | None = None
    num_keeps: tuple[int, ...] | None = None
    scope: Scope = "item"
    newlines: Newlines = "budget"
    equal: Equal | None = None
    positions: Positions | None = None
    visual_tokens: int | None = None
    harness: HarnessOptions = field(default_factory=partial(HarnessOptions, Path("results/eval")))

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: says which argument, and why.
        """
        self.harness.check()
        built_in = [name for name in self.suite.split() if name in BENCHES]
        if built_in:
            raise ArgumentError(f"`suite` {built_in[0]} cannot be combined with others; run it by itself")
        if not tasks_of(self.suite):
            raise ArgumentError(
                "`suite` is empty; name tasks, or one of scenes, scenes-video, paper-image, paper-video and paper"
            )
        if self.model is None and self.harness.served_model is None:
            raise ArgumentError("`model` is needed: a checkpoint directory or hub name, or 'embedded'")
        if self.visual_tokens is not None and self.equal in (None, "tokens"):
            raise ArgumentError("`visual_tokens` is for `equal` flops and both")
        if self.num_keeps is not None and self.keep_ratios is not None:
            raise ArgumentError("give `keep_ratios` or `num_keep`, not both")
        if self.num_keeps is not None and self.equal not in (None, "tokens"):
            raise ArgumentError("`equal` flops needs `keep_ratios`: numbers are compared at equal tokens")
        for name in ("scope", "newlines"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default and self.harness.backend != "hf":
                raise ArgumentError(f"`{name}` is for `backend` hf, not for {self.harness.backend}")
        with argument_errors():
            for keep_ratio in self.keep_ratios or ():
                Budget(keep_ratio)
            for num_keep in self.num_keeps or ():
                Budget(num_keep=num_keep)
            if self.harness.is_server:
                self._check_server()

    def _check_server(self) -> None:
        methods, ratios = self.methods or (), self.keep_ratios or ()
        wanted = "one method and one keep ratio, those that the server was started with"
        if self.num_keeps is not None:
            raise ArgumentError(f"`num_keep`: not for `backend` openai-server, which has {wanted}")
        if self.equal is not None:
            raise ArgumentError(f"`equal` {self.equal}: not for `backend` openai-server, which has {wanted}")
        if methods == (UNPRUNED,):
            if ratios:
                raise ArgumentError("`keep_ratios`: not for `methods` unpruned, which keeps all tokens")
            return
        method = get_method(methods[0]) if len(methods) == 1 else None
        if method is None or len(ratios) > 1 or (not ratios and not method.finds_count):
            raise ArgumentError(
                f"`backend` openai-server needs `methods` and `keep_ratios` with {wanted}, got {len(methods)} and "
                f"{len(ratios)}; `methods` unpruned is for a server without pruning"
            )
        if ratios and not method.takes_budget:
            raise ArgumentError(f"`keep_ratios`: not for {methods[0]}, which says itself how much it keeps")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A row of the comparison.

    Attributes:
        run: what is run.
        matching: what is made equal between methods; None where a method says itself how much it keeps.
        keep_ratio: the one at which methods are compared.
        refusal: why it is not run; None if it is.
    """

    run: EvaluationRun
    matching: Matching | None = None
    keep_ratio: float | None = None
    refusal: str | None = None


def plan_suite(options: SuiteOptions) -> list[PlannedRun]:
    """List the runs, task by task, the unpruned one first; a server has one method, and no others are planned.

    Raises:
        ArgumentError: an argument cannot work.
        UnknownMethodError: there is no such method.
    """
    options.check()
    with argument_errors():
        planner = _Planner(options)
        found = [planned for task in tasks_of(options.suite) for planned in planner.of_task(task)]
    once: dict[tuple[EvaluationRun, str | None], PlannedRun] = {}
    for planned in found:
        once.setdefault((planned.run, planned.refusal), planned)
    return list(once.values())


def tasks_of(suite: str) -> tuple[str, ...]:
    """Return lmms-eval's names of what a suite names: the paper's data sets by key, suites of them, and any task."""
    return tuple(dict.fromkeys(task for word in suite.split() for task in _tasks(word)))


def _tasks(word: str) -> Iterator[str]:
    keys = {each.key: each.task for each in DATA_SETS}
    if word in SUITES:
        yield from (each.task for each in SUITES[word])
    else:
        yield keys.get(word, word.removeprefix(AS_IN_LMMS_EVAL))


def medium_of(task: str) -> Modality | None:
    """Return what a task shows, None if the paper does not tell."""
    return next((each.medium for each in DATA_SETS if task in (each.task, each.todays_task)), None)


class _Planner:
    def __init__(self, options: SuiteOptions) -> None:
        # The paper's models have short names.
        name = options.model or options.harness.served_model or EMBEDDED
        self.model, self.options = CHECKPOINTS.get(name.lower(), name), options
        is_video = architecture_of(self.model) == "llava-next-video-7b"
        self.keep_ratios: Sequence[float] = options.keep_ratios or (0.1 if is_video else KEEP_RATIO,)
        equal = options.equal or "tokens"
        self.matchings = [each for each in MATCHINGS if equal in (each, "both")]
        names = options.methods or DEFAULT_METHODS
        self.methods = [name for name in dict.fromkeys(names) if name != UNPRUNED]
        self.by_name = {name: get_method(name) for name in self.methods}
        self._subjects: dict[Modality, Subject] = {}

    def of_task(self, task: str) -> Iterator[PlannedRun]:
        run_of: Callable[..., EvaluationRun] = partial(EvaluationRun, self.model, task)
        if not self.options.harness.is_server or not self.methods:
            yield PlannedRun(run_of())
        given, is_server = self.options.keep_ratios, self.options.harness.is_server
        counts = self.options.num_keeps
        for name, method in self.by_name.items():
            positions = None if method.layers else self.options.positions
            how = {"positions": positions, "scope": self.options.scope, "newlines": self.options.newlines}
            for setting in settings_of(method, self.keep_ratios, self.matchings):
                if setting is None:
                    # A server that was started with a keep ratio does not let a method decide.
                    if not (is_server and given):
                        yield PlannedRun(run_of(name, **how))
                elif counts is None and (given or not method.finds_count):
                    matching, keep_ratio = setting
                    run = run_of(name, keep_ratio, **how)
                    yield self._flops(run, keep_ratio) if matching == "flops" else PlannedRun(run, *setting)
            if method.takes_budget:
                yield from (PlannedRun(run_of(name, num_keep=count, **how), "tokens") for count in counts or ())

    def _flops(self, run: EvaluationRun, keep_ratio: float) -> PlannedRun:
        if not self.by_name[run.method].layers:
            return PlannedRun(run, "flops", keep_ratio)
        subject = self._subject(medium_of(run.task) or "image")
        found = at_equal_flops(subject, run.method, keep_ratio)
        if found.num_keep is None:
            return PlannedRun(run, "flops", keep_ratio, found.refusal)
        total = subject.prompts[0].num_visual_tokens
        if found.num_keep != budget(total, keep_ratio=keep_ratio):
            run = replace(run, keep_ratio=found.num_keep / total)
        return PlannedRun(run, "flops", keep_ratio)

    def _subject(self, medium: Modality) -> Subject:
        """Return the model with its prompts of one medium, all with as many visual tokens."""
        if medium not in self._subjects:
            given = self.options.visual_tokens
            subject = subject_of(self.model, given)
            keys = {each.key for each in DATA_SETS if each.medium == medium}
            prompts = {key: each for key, each in subject.workloads.items() if key in keys}
            if not prompts:
                raise ArgumentError(f"`equal` flops: {subject.title} takes no {medium}s")
            if given is not None and subject.architecture is not None:
                prompts = {key: replace(each, num_visual_tokens=given) for key, each in prompts.items()}
            if len({each.num_visual_tokens for each in prompts.values()}) > 1:
                raise ArgumentError(
                    f"`equal` flops needs `visual_tokens`: how many {subject.title} makes of an image depends on it"
                )
            self._subjects[medium] = replace(subject, workloads=prompts)
        return self._subjects[medium]
