"""`divprune serve` and `divprune batch`: pruned models behind vLLM."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divprune.budget import Budget
from divprune.cli.console import Console, command, one_line_errors
from divprune.cli.shared_options import (
    ConfigFile,
    Debug,
    Force,
    Json,
    MethodName,
    PositionsOption,
    how_to_prune,
    option,
)
from divprune.errors import ArgumentError, argument_errors

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
    option("FRACTION", "Fraction of each image's tokens that stays (not what goes), in (0, 1].", "0.098"),
]
ServedNumKeep = Annotated[int | None, option("N", "Tokens kept of each image, instead of a fraction.")]


def serve(
    model: ModelArgument,
    flags: Flags = None,
    method: MethodName = "divprune",
    keep_ratio: ServedKeepRatio = None,
    num_keep: ServedNumKeep = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    allow_request_ratio: Annotated[
        bool, typer.Option("--allow-request-ratio", help="Let requests ask for fewer tokens than that.")
    ] = False,
    grace: Annotated[
        float, option("SECONDS", "When asked to stop, how long running requests may take.", min=0.0)
    ] = 20.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be started.")] = False,
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
        with argument_errors():
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
    share = f"{kept.num_keep} tokens" if kept.keep_ratio is None else f"{kept.keep_ratio:.1%} of the tokens"
    request = (
        "a request may ask for fewer by mm_processor_kwargs" if allow_request_ratio else "the same in each request"
    )
    console.line(f"model: {server.architecture}")
    console.line(f"pruning: {method} keeps {share} of each image; {request}")
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


def batch(
    model: ModelArgument,
    source: Annotated[
        Path, typer.Option("--input", metavar="PATH", help="A folder of images, or a JSONL file of questions.")
    ],
    output: Annotated[Path, option("FILE", "Where answers go, one JSON line each; what is there is not repeated.")],
    flags: Flags = None,
    prompt: Annotated[str | None, option("TEXT", "What to ask where the input does not say.")] = None,
    method: MethodName = "divprune",
    keep_ratio: ServedKeepRatio = None,
    num_keep: ServedNumKeep = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1)] = 64,
    temperature: Annotated[float, option("T", "0: the likeliest answer.", min=0.0)] = 0.0,
    workers: Annotated[int, option("N", "Engines; more than one run under Ray.", min=1)] = 1,
    gpus_per_worker: Annotated[float | None, option("N", "GPUs of each engine.", "1 if there are any", min=0.0)] = None,
    ray_address: Annotated[str | None, option("ADDRESS", "A Ray cluster to run on, such as auto.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Read a folder's subfolders too.")] = False,
    trust_names: Annotated[
        bool,
        typer.Option(
            "--trust-names", help="Know images by path, size and time of change when going on, instead of reading them."
        ),
    ] = False,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer a folder of images, or a file of questions, with pruning on."""
    with command(json, debug, force) as console:
        if not debug:
            # Read by vLLM's processes when they start.
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        with console.working("starting"):
            from divprune.serving.run import BatchOptions, answer_batch
        how = how_to_prune(
            config, model, console, method=method, keep_ratio=keep_ratio, num_keep=num_keep, positions=positions
        )
        options = BatchOptions(
            model=model,
            source=source,
            output=output,
            flags=tuple(flags or ()),
            prompt=prompt,
            **how,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            ray_address=ray_address,
            recursive=recursive,
            trust_names=trust_names,
        )
        try:
            done = answer_batch(options, console)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; the same command goes on from what is in {output}") from None
        total, failed = done.num_questions, done.num_failed
        console.show(f"{total - failed} of {total} questions answered: {output}")
        console.result({"output": str(output), "num_questions": total, "num_failed": failed})
        if failed:
            raise ArgumentError(
                f"{failed} of {total} questions could not be asked; {output} says why, and the same command tries "
                "them again"
            )
