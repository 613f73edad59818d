"""Where a server will listen, found out from vLLM's flags before vLLM is imported, and whether it can."""

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from divprune.errors import ServerError, first_line
from divprune.serving.vllm_flags import flag_values
from divprune.vllm_plugin.addresses import client_address

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Listening:
    """Where a server will listen.

    Attributes:
        host: name or address; empty for all of the machine's.
        port: the TCP port.
        uds: the Unix domain socket that it listens on instead; None if it does not.
        has_tls: whether it has a certificate.
    """

    host: str
    port: int
    uds: str | None
    has_tls: bool

    @property
    def address(self) -> str:
        """What clients reach it by."""
        return client_address(self.host, self.port, uds=self.uds, has_tls=self.has_tls)

    def require_free(self) -> None:
        """Check that nobody else listens there; a socket's file that a killed server has left is removed.

        Raises:
            ServerError: somebody does, or one cannot listen there.
        """
        if self.uds is not None:
            _require_free_file(Path(self.uds))
            return
        with _bind_errors(self), socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as trial:
            # As vLLM does: connections of an earlier server may still be closing.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((self.host, self.port))


def listening(flags: Sequence[str]) -> Listening:
    """Read vLLM's flags, and those that a file of `--config` gives.

    Raises:
        ServerError: a flag has no such value, or the file cannot be read.
    """
    given = flag_values(flags)
    port = given.get("port", str(DEFAULT_PORT))
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ServerError(f"the port must be a number between 1 and 65535, got {port}")
    has_tls = bool(given.get("ssl-certfile") or given.get("ssl-keyfile"))
    return Listening(given.get("host", LOOPBACK), int(port), given.get("uds") or None, has_tls)


def _require_free_file(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        if not path.absolute().parent.is_dir():
            raise ServerError(f"the folder of the socket is not there: {path.absolute().parent}") from None
        return
    if not is_socket:
        raise ServerError(f"the server's socket would replace a file: {path}; give another name")
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ServerError(f"cannot tell whether a server listens at {path} ({first_line(error)})") from None
    raise ServerError(f"another server listens at {path}; stop it, or give another name")


@contextmanager
def _bind_errors(place: Listening) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {place.port} is in use; stop what listens there, or give another: `-- --port N`",
            errno.EACCES: f"port {place.port} is not for this user; give one above 1023: `-- --port N`",
            errno.EADDRNOTAVAIL: f"{place.host} is no address of this machine; give one that is: `-- --host ADDRESS`",
        }
        reason = reasons.get(error.errno or 0, f"{place.host} cannot be listened at ({first_line(error)})")
        raise ServerError(reason) from None
