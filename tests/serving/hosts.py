"""Hosts of images that do not behave."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
SAID = {
    "hangs up": b"",
    "talks nonsense": b"\0\1nonsense\r\n\r\n",
    "answers 404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "answers 503": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    "stops half-way": OK + b"half",
}


@contextmanager
def running_host(behaviour: str) -> Iterator[str]:
    """The address of an image at a host that behaves so: one of `SAID`, "says nothing" or "drips"."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, behaviour, stopped), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/image.png"
        stopped.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, behaviour: str, stopped: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            threading.Thread(target=_answer, args=(client, behaviour, stopped), daemon=True).start()


def _answer(client: socket.socket, behaviour: str, stopped: threading.Event) -> None:
    with client, contextlib.suppress(OSError):
        client.recv(4096)
        if behaviour == "says nothing":
            stopped.wait()
        elif behaviour == "drips":
            client.sendall(OK)
            while not stopped.is_set():
                client.sendall(b"x")
                time.sleep(0.1)
        else:
            client.sendall(SAID[behaviour])
