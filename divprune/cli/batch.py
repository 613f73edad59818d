"""`divprune batch`: questions about many images, answered by a pruned model behind vLLM."""

import os
from pathlib import Path
from typing import Annotated

import typer

from divprune.cli.console import command
from divprune.cli.help import MODEL, OUTPUT, RUNNING
from divprune.cli.serve import Flags, ModelArgument, ServedKeepRatio, ServedNumKeep
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
from divprune.errors import ArgumentError


def batch(
    model: ModelArgument,
    source: Annotated[
        Path,
        typer.Option(
            "--input", metavar="PATH", help="A folder of images, or a JSONL file of questions.", rich_help_panel=MODEL
        ),
    ],
    output: Annotated[
        Path, option("FILE", "Where answers go, one JSON line each; what is there is not repeated.", panel=OUTPUT)
    ],
    flags: Flags = None,
    prompt: Annotated[str | None, option("TEXT", "What to ask where the input does not say.", panel=MODEL)] = None,
    method: MethodName = "divprune",
    keep_ratio: ServedKeepRatio = None,
    num_keep: ServedNumKeep = None,
    positions: PositionsOption = None,
    config: ConfigFile = None,
    max_new_tokens: Annotated[int, option("N", "Longest answer, in tokens.", min=1, panel=RUNNING)] = 64,
    temperature: Annotated[float, option("T", "0: the likeliest answer.", min=0.0, panel=RUNNING)] = 0.0,
    workers: Annotated[int, option("N", "Engines; more than one run under Ray.", min=1, panel=RUNNING)] = 1,
    gpus_per_worker: Annotated[
        float | None, option("N", "GPUs of each engine.", "1 if there are any", min=0.0, panel=RUNNING)
    ] = None,
    ray_address: Annotated[
        str | None, option("ADDRESS", "A Ray cluster to run on, such as auto.", panel=RUNNING)
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Read a folder's subfolders too.", rich_help_panel=MODEL)
    ] = False,
    trust_names: Annotated[
        bool,
        typer.Option(
            "--trust-names",
            help="Know images by path, size and time of change when going on, instead of reading them.",
            rich_help_panel=RUNNING,
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
