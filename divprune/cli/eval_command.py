"""`divprune eval`: accuracy under pruning. Heavy imports wait inside."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.arguments import Debug, Json
from divprune.cli.failures import one_line_errors
from divprune.cli.screen import Screen, quiet_logs, quiet_progress_bars


class SuiteName(StrEnum):
    """What `--suite` takes."""

    scenes = "scenes"


class Matched(StrEnum):
    """What `--equal` takes."""

    tokens = "tokens"
    flops = "flops"
    both = "both"


def evaluate(
    suite: Annotated[
        SuiteName, typer.Option(metavar="NAME", help="scenes: toy scenes, answered by the embedded toy model.")
    ] = SuiteName.scenes,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="all",
            help="Methods, separated by spaces: 'divprune random:seed=3'. See `divprune methods`.",
        ),
    ] = None,
    keep_ratio: Annotated[
        list[float] | None,
        typer.Option(metavar="SHARE", show_default="0.5 0.25 0.098 0.05", help="Share kept; repeat for several."),
    ] = None,
    equal: Annotated[
        Matched, typer.Option(metavar="WHAT", help="Compare at equal tokens, at equal flops, or both.")
    ] = Matched.both,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many scenes.")] = 500,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the record goes; an interrupted run goes on from there.")
    ] = Path("results"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare all methods on toy scenes: the embedded model, no download, not a verdict on photographs."""
    with one_line_errors(debug), quiet_logs(debug):
        screen = Screen(json)
        with screen.working("starting"):
            from divprune.cli.eval import EvalOptions, evaluate_and_show
        options = EvalOptions(
            suite=suite.value,
            methods=None if methods is None else tuple(methods.split()),
            keep_ratios=None if keep_ratio is None else tuple(keep_ratio),
            equal=equal.value,
            limit=limit,
            output=output,
        )
        with quiet_progress_bars(debug):
            evaluate_and_show(options, screen)
