"""`divprune serve`: a pruned model behind vLLM's server."""

import shlex
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.budget import Budget
from divprune.cli.console import Console, one_line_errors
from divprune.cli.help import PRUNING, RUNNING
from divprune.cli.shared_options import (
    ConfigFile,
    Debug,
    Json,
    MethodName,
    PositionsOption,
    how_to_prune,
    option,
)
from divprune.errors import argument_errors
from divprune.progress import quiet_logs

if TYPE_CHECKING:
    from divprune.serving.server import Server

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Checkpoint directory or hub name.", show_default=False)
]
Flags = Annotated[
    list[str] | None, typer.Argument(metavar="[-- VLLM FLAGS]", help="Flags that vLLM takes.", show_default=False)
]
ServedKeepRatio = Annotated[
    float | None,
    option(
        "FRACTION", "Fraction of each image's tokens that stays (not what goes), in (0, 1].", "0.098", panel=PRUNING
    ),
]
ServedNumKeep = Annotated[int | None, option("N", "Tokens kept of each image, instead of a fraction.", panel=PRUNING)]


def serve(
    model: ModelArgument,
    flags: Flags = None,
    method: MethodName = "divprune",
    keep_ratio: ServedKeepRatio = None,
    num_keep: ServedNumKeep = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    allow_request_ratio: Annotated[
        bool,
        typer.Option(
            "--allow-request-ratio", help="Let requests ask for fewer tokens than that.", rich_help_panel=PRUNING
        ),
    ] = False,
    grace: Annotated[
        float, option("SECONDS", "When asked to stop, how long running requests may take.", min=0.0, panel=RUNNING)
    ] = 20.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be started.", rich_help_panel=RUNNING)
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Start vLLM's OpenAI-compatible server with pruning on."""
    console = Console(json)
    with one_line_errors(debug, console):
        with console.working("starting"):
            from divprune.budget import budget_or_default
            from divprune.serving.server import pruned_server
            from divprune.serving.vllm_installed import require_vllm
        how = how_to_prune(
            config, model, console, method=method, keep_ratio=keep_ratio, num_keep=num_keep, positions=positions
        )
        method = how["method"]
        kept = budget_or_default(how["keep_ratio"], how["num_keep"])
        if not dry_run:
            require_vllm()
        with argument_errors(), nullcontext() if debug else quiet_logs():
            server = pruned_server(
                model,
                method=method,
                keep_ratio=kept.keep_ratio,
                num_keep=kept.num_keep,
                positions=how["positions"],
                allow_request_ratio=allow_request_ratio,
                grace=grace,
                flags=tuple(flags or ()),
            )
        if not dry_run:
            server.listening.require_free()
        _show(server, console, method, kept, allow_request_ratio)
        if not dry_run:
            server.start()


def _show(server: "Server", console: Console, method: str, kept: Budget, allow_request_ratio: bool) -> None:
    """Print what will be served, and how to reach it."""
    tokens = f"{kept.num_keep} tokens" if kept.keep_ratio is None else f"{kept.keep_ratio:.1%} of the tokens"
    request = (
        "a request may ask for fewer by mm_processor_kwargs" if allow_request_ratio else "the same in each request"
    )
    console.line(f"model: {server.architecture}")
    console.line(f"pruning: {method} keeps {tokens} of each image; {request}")
    console.line(f"address: {server.address}")
    console.line(f"command: {shlex.join(server.command)}")
    console.result(
        {
            "architecture": server.architecture,
            "method": method,
            "keep_ratio": kept.keep_ratio,
            "num_keep": kept.num_keep,
            "allow_request_ratio": allow_request_ratio,
            "address": server.address,
            "command": list(server.command),
        }
    )
