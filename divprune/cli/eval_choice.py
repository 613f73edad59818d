"""The arguments of `divprune eval`: which suite they are for, and which of them do not apply to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from divprune.budget import Budget
from divprune.cli.failures import CommandError
from divprune.cli.harness_arguments import Running, option_of, shares_of
from divprune.evaluation.datasets import DATA_SETS, IMAGE_SETS, VIDEO_SETS

SCENES = "scenes"
SUITES = {"paper-image": IMAGE_SETS, "paper-video": VIDEO_SETS, "paper": DATA_SETS}
AS_IN_LMMS_EVAL = "lmms:"
"""Before a name: lmms-eval's own task, where one of the paper's data sets is called so too."""
EMBEDDED = "embedded"
DEFAULT_METHODS = ("divprune", "random")
UNPRUNED = "unpruned"


@dataclass(frozen=True)
class EvalArguments:
    """What was typed; None for what was left out."""

    suite: str
    model: str | None
    methods: tuple[str, ...] | None
    keep_ratios: tuple[float, ...] | None
    equal: str | None
    visual_tokens: int | None
    limit: int | None
    resume: bool
    output: Path | None
    running: Running
    debug: bool

    @property
    def is_scenes(self) -> bool:
        """Whether toy scenes are asked about."""
        return self.suite.split() == [SCENES]


def shares_typed(words: Sequence[str] | None) -> tuple[float, ...] | None:
    """Read `--keep-ratios`, given once or several times.

    Raises:
        CommandError: they are no numbers.
    """
    return None if not words else shares_of(" ".join(words))


def check_scenes(typed: EvalArguments) -> None:
    """Refuse what does not apply to toy scenes.

    Raises:
        CommandError: says which option, and why.
    """
    if typed.model not in (None, EMBEDDED):
        raise CommandError(
            f"--suite scenes asks the embedded model, which was trained on such scenes and knows no others, got "
            f"--model {typed.model}; give that another suite, such as --suite pope"
        )
    given = [*typed.running.given, *(["visual_tokens"] if typed.visual_tokens is not None else [])]
    if given:
        named = ", ".join(map(option_of, given))
        raise CommandError(f"{named}: not for --suite scenes, which answers from the embedded model on the CPU")


def check_harness(typed: EvalArguments) -> None:
    """Refuse what cannot work with data sets.

    Raises:
        CommandError: says which option, and why.
    """
    typed.running.check()
    if SCENES in typed.suite.split():
        raise CommandError("--suite scenes cannot be combined with data sets; run it by itself")
    if not tasks_of(typed.suite):
        raise CommandError("--suite is empty; name tasks, or one of scenes, paper-image, paper-video and paper")
    if typed.model is None and typed.running.served_model is None:
        raise CommandError("--model is needed: a checkpoint directory or hub name, or 'embedded'")
    if typed.visual_tokens is not None and typed.equal in (None, "tokens"):
        raise CommandError("--visual-tokens is for --equal flops and both")
    for share in typed.keep_ratios or ():
        try:
            Budget(share)
        except ValueError as error:
            raise CommandError(str(error)) from None
    if typed.running.is_server:
        _check_server(typed)


def _check_server(typed: EvalArguments) -> None:
    methods, shares = typed.methods or (), typed.keep_ratios or ()
    wanted = "one method and one share, those that the server was started with"
    if typed.equal is not None:
        raise CommandError(f"--equal {typed.equal}: not for --backend openai-server, which has {wanted}")
    if methods == (UNPRUNED,):
        if shares:
            raise CommandError("--keep-ratios: not for --methods unpruned, which keeps all tokens")
        return
    if len(methods) != 1 or len(shares) > 1 or (not shares and _count(methods[0]) not in ("schedule", "adaptive")):
        raise CommandError(
            f"--backend openai-server needs --methods and --keep-ratios with {wanted}, got {len(methods)} and "
            f"{len(shares)}; --methods unpruned is for a server without pruning"
        )
    if shares and _count(methods[0]) == "schedule":
        raise CommandError(f"--keep-ratios: not for {methods[0]}, which says itself how much it keeps")


def _count(method: str) -> str:
    from divprune.methods import get_method

    try:
        return get_method(method).count
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


def tasks_of(suite: str) -> tuple[str, ...]:
    """Return lmms-eval's names of what a suite names: the paper's data sets by key, suites of them, and any task."""
    return tuple(dict.fromkeys(task for word in suite.split() for task in _tasks(word)))


def _tasks(word: str) -> Iterator[str]:
    keys = {each.key: each.task for each in DATA_SETS}
    if word in SUITES:
        yield from (each.task for each in SUITES[word])
    else:
        yield keys.get(word, word.removeprefix(AS_IN_LMMS_EVAL))
