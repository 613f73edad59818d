"""The command that starts vLLM's own OpenAI-compatible server with pruning on."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from divprune.config import Positions
from divprune.errors import ServerError
from divprune.serving.engine import require_vllm

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
MIDDLEWARE = "divprune.vllm_plugin.server_middleware.PrunedServer"
OWN_FLAGS = ("--model", "--hf-overrides", "--trust-request-mm-kwargs")
"""Flags of vLLM that the command sets itself."""


@dataclass(frozen=True)
class Server:
    """A server that can be started.

    Attributes:
        architecture: the pruned model class that vLLM will load.
        command: what to run.
        address: where it will answer.
    """

    architecture: str
    command: tuple[str, ...]
    address: str


def pruned_server(
    model: str,
    *,
    method: str,
    keep_ratio: float | None,
    num_keep: int | None,
    positions: Positions | None = None,
    allow_request_ratio: bool = False,
    flags: Sequence[str] = (),
) -> Server:
    """Prepare a server.

    Args:
        model: checkpoint directory or hub name.
        method: which tokens are kept, as `divprune.get_method` reads it.
        keep_ratio: fraction of each image's visual tokens that is kept; None if `num_keep` is given.
        num_keep: how many are kept; None if `keep_ratio` is given.
        positions: as for `pruned_overrides`.
        allow_request_ratio: whether a request may ask for fewer tokens than that.
        flags: vLLM's own flags. Without `--host` the server listens on the loopback address alone.

    Raises:
        MissingDependencyError: vLLM is not installed.
        ServerError: a flag is one that this command sets itself.
        UnsupportedModelError: the model, or the method, cannot be served pruned.
    """
    require_vllm()
    from divprune.vllm_plugin import pruned_overrides

    for flag in flags:
        if flag.partition("=")[0].replace("_", "-") in OWN_FLAGS:
            raise ServerError(f"{flag.partition('=')[0]} is set by divprune serve itself; leave it out")
    overrides = pruned_overrides(
        model,
        keep_ratio=keep_ratio,
        num_keep=num_keep,
        method=method,
        positions=positions,
        allow_request_ratio=allow_request_ratio,
    )
    host, port = _value(flags, "--host", LOOPBACK), _value(flags, "--port", str(DEFAULT_PORT))
    command = [sys.executable, "-m", "divprune.serving.watch", *_entry_point(model)]
    command += ["--hf-overrides", json.dumps(overrides), "--middleware", MIDDLEWARE]
    if _value(flags, "--host", "") == "":
        command += ["--host", LOOPBACK]
    if allow_request_ratio:
        command.append("--trust-request-mm-kwargs")
    return Server(_architecture(overrides), (*command, *flags), f"http://{host}:{port}/v1")


def _architecture(overrides: dict[str, Any]) -> str:
    return str(overrides["architectures"][0])


def _entry_point(model: str) -> list[str]:
    """`vllm serve`; builds of vLLM whose distribution has another name only have its server module."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


def _value(flags: Sequence[str], name: str, default: str) -> str:
    """Return the value of a flag, written as `--name value` or `--name=value`."""
    for place, flag in enumerate(flags):
        key, equals, value = flag.partition("=")
        if key == name:
            return value if equals else [*flags, default][place + 1]
    return default
