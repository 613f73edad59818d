"""`divprune serve` and `divprune batch`: pruned models behind vLLM. Heavy imports wait inside."""

import os
from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.arguments import Debug, Json
from divprune.cli.failures import one_line_errors
from divprune.cli.screen import Screen, quiet_logs

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Checkpoint directory or hub name.", show_default=False)]
Flags = Annotated[
    list[str] | None, typer.Argument(metavar="[-- VLLM FLAGS]", help="Flags that vLLM takes.", show_default=False)
]
MethodName = Annotated[str, typer.Option(metavar="NAME", help="Which tokens to keep; see `divprune methods`.")]
KeepRatio = Annotated[
    float | None,
    typer.Option(metavar="SHARE", show_default="0.098", help="Share of each picture's tokens kept, in (0, 1]."),
]
NumKeep = Annotated[int | None, typer.Option(metavar="N", help="Tokens kept of each picture, instead of a share.")]


def serve(
    model: Model,
    flags: Flags = None,
    method: MethodName = "divprune",
    keep_ratio: KeepRatio = None,
    num_keep: NumKeep = None,
    allow_request_ratio: Annotated[
        bool, typer.Option("--allow-request-ratio", help="Let requests ask for fewer tokens than that.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be started.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Start vLLM's OpenAI-compatible server with pruning on."""
    with one_line_errors(debug):
        screen = Screen(json)
        with screen.working("starting"):
            from divprune.cli.serve import prepared_server, show_server
        server = prepared_server(model, method, keep_ratio, num_keep, allow_request_ratio, tuple(flags or ()))
        show_server(server, screen, method, keep_ratio, num_keep, allow_request_ratio)
        if not dry_run:
            # This process has imported much that a server does not need.
            os.execv(server.command[0], server.command)


def batch(
    model: Model,
    source: Annotated[
        Path, typer.Option("--input", metavar="PATH", help="A folder of pictures, or a JSONL file of questions.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where answers go, one JSON line each; what is there is not repeated.")
    ],
    flags: Flags = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to ask where the input does not say.")
    ] = None,
    method: MethodName = "divprune",
    keep_ratio: KeepRatio = None,
    num_keep: NumKeep = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option(metavar="T", min=0.0, help="0: the likeliest answer.")] = 0.0,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Engines; more than one run under Ray.")] = 1,
    gpus_per_worker: Annotated[
        float | None, typer.Option(metavar="N", min=0.0, show_default="1 if there are any", help="GPUs of each engine.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster to run on, such as auto.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer a folder of pictures, or a file of questions, with pruning on."""
    with one_line_errors(debug):
        screen = Screen(json)
        if not debug:
            # Read by vLLM's processes when they start.
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        with screen.working("starting"):
            from divprune.cli.batch import BatchOptions, answer_batch
        options = BatchOptions(
            model=model,
            source=source,
            output=output,
            flags=tuple(flags or ()),
            prompt=prompt,
            method=method,
            keep_ratio=keep_ratio,
            num_keep=num_keep,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            ray_address=ray_address,
        )
        with quiet_logs(debug):
            answer_batch(options, screen)
