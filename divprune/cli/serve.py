"""What `divprune serve` checks and tells before vLLM takes over."""

import shlex
from collections.abc import Sequence

from divprune.cli.failures import CommandError
from divprune.cli.options import checked_budget
from divprune.cli.screen import Screen
from divprune.errors import DivpruneError
from divprune.serving.server import Server, pruned_server


def prepared_server(
    model: str,
    method: str,
    keep_ratio: float | None,
    num_keep: int | None,
    allow_request_ratio: bool,
    flags: Sequence[str],
) -> Server:
    """The server to start.

    Raises:
        CommandError: an option cannot work.
        DivpruneError: the model cannot be served pruned, or vLLM is missing.
    """
    kept = checked_budget(keep_ratio, num_keep)
    try:
        return pruned_server(
            model,
            method=method,
            keep_ratio=kept.keep_ratio,
            num_keep=kept.num_keep,
            allow_request_ratio=allow_request_ratio,
            flags=flags,
        )
    except DivpruneError:
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


def show_server(
    server: Server,
    screen: Screen,
    method: str,
    keep_ratio: float | None,
    num_keep: int | None,
    allow_request_ratio: bool,
) -> None:
    """Print what will be served, and how to reach it."""
    kept = checked_budget(keep_ratio, num_keep)
    share = f"{kept.num_keep} tokens" if kept.keep_ratio is None else f"{kept.keep_ratio:.1%} of the tokens"
    request = (
        "a request may ask for fewer by mm_processor_kwargs" if allow_request_ratio else "the same in each request"
    )
    screen.line(f"model: {server.architecture}")
    screen.line(f"pruning: {method} keeps {share} of each picture; {request}")
    screen.line(f"address: {server.address}")
    screen.line(f"command: {shlex.join(server.command)}")
    screen.result(
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
