"""The command that starts vLLM's own OpenAI-compatible server with pruning on."""

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NoReturn

from divprune.checkpoint_checks import read_json
from divprune.checkpoint_places import checkpoint_folder
from divprune.errors import ArgumentError, ServerError
from divprune.serving.listening import LOOPBACK, Listening, listening
from divprune.serving.vllm_flags import flag_values
from divprune.serving.vllm_installed import has_vllm

if TYPE_CHECKING:
    from divprune.config import Positions

MIDDLEWARE = "divprune.vllm_plugin.server_middleware.ServerMiddleware"
OWN_FLAGS = {
    "model": "the first argument",
    "hf-overrides": "divprune serve itself",
    "trust-request-mm-kwargs": "`divprune serve --allow-request-ratio`",
    "shutdown-timeout": "`divprune serve --grace`",
}
"""Flags of vLLM that the command sets itself, and by what."""
DEFAULT_GRACE = 20.0
MAX_GRACE = 24 * 3600.0


@dataclass(frozen=True)
class Server:
    """A server that can be started.

    Attributes:
        architecture: the pruned model class that vLLM will load.
        command: what to run.
        listening: where it will answer.
    """

    architecture: str
    command: tuple[str, ...]
    listening: Listening

    @property
    def address(self) -> str:
        """What clients reach it by."""
        return self.listening.address

    def start(self) -> NoReturn:
        """Become the server: this process, which has imported much that a server does not need, runs it instead."""
        from divprune.serving.watch import STOP_SIGNALS

        sys.stdout.flush()
        # Kept for the process to come, which else would end by one before it knows what to do with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        os.execv(self.command[0], self.command)


def pruned_server(
    model: str,
    *,
    method: str,
    keep_ratio: float | None,
    num_keep: int | None,
    positions: "Positions | None" = None,
    allow_request_ratio: bool = False,
    grace: float = DEFAULT_GRACE,
    flags: Sequence[str] = (),
) -> Server:
    """Prepare a server. What can be known to be wrong without vLLM is found here, and the quick things first.

    Args:
        model: checkpoint directory or hub name.
        method: which tokens are kept, as `divprune.get_method` reads it.
        keep_ratio: fraction of each image's visual tokens that is kept; None if `num_keep` is given.
        num_keep: how many are kept; None if `keep_ratio` is given.
        positions: as for `pruned_overrides`.
        allow_request_ratio: whether a request may ask for fewer tokens than that.
        grace: how many seconds running requests may take when the server is asked to stop, 0 to 86400.
        flags: vLLM's own flags. Without `--host` the server listens on the loopback address alone.

    Raises:
        ArgumentError: `grace` is out of range.
        CheckpointError: there is no such model, or its config.json cannot be read.
        ServerError: a flag is one that this command sets itself, or cannot be what it is.
        UnsupportedModelError: the model, or the method, cannot be served pruned.
    """
    if not 0 <= grace <= MAX_GRACE:
        raise ArgumentError(f"`grace` must be between 0 and {MAX_GRACE:g} seconds, got {grace:g}")
    folder = checkpoint_folder(model)
    if folder is not None:
        read_json(model, folder / "config.json")
    given = flag_values(flags)
    for name, setter in OWN_FLAGS.items():
        if name in given:
            raise ServerError(f"{name} is no flag to give to vLLM here, it is set by {setter}; leave it out")
    place = listening(flags)

    from divprune.vllm_plugin import pruned_overrides

    overrides = pruned_overrides(
        model,
        keep_ratio=keep_ratio,
        num_keep=num_keep,
        method=method,
        positions=positions,
        allow_request_ratio=allow_request_ratio,
    )
    command = [sys.executable, "-m", "divprune.serving.watch", f"{grace:g}", *_entry_point(model)]
    command += ["--hf-overrides", json.dumps(overrides), "--middleware", MIDDLEWARE]
    # vLLM's own limit for what runs: the engine's, if a signal reaches it, and that of more than one API server.
    command += ["--shutdown-timeout", str(math.ceil(grace))]
    if "host" not in given:
        command += ["--host", LOOPBACK]
    if allow_request_ratio:
        command.append("--trust-request-mm-kwargs")
    (architecture,) = overrides["architectures"]
    return Server(architecture, (*command, *flags), place)


def _entry_point(model: str) -> list[str]:
    """`vllm serve`; builds of vLLM whose distribution has another name only have its server module."""
    try:
        version("vllm")
    except PackageNotFoundError:
        if has_vllm():
            return [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]
