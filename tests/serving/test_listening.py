"""Where a server will listen, from vLLM's flags alone, and whether it can."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from divprune.errors import ServerError
from divprune.serving.listening import Listening, listening


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text('port: 9000\nhost: "::"\nssl_certfile: cert.pem\nenforce-eager: true\n', encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ((), "http://127.0.0.1:8000/v1"),
        (("--port", "9001"), "http://127.0.0.1:9001/v1"),
        (("--port=9001", "--port", "9002"), "http://127.0.0.1:9002/v1"),
        (("--host", "0.0.0.0"), "http://0.0.0.0:8000/v1"),
        (("--host=::1",), "http://[::1]:8000/v1"),
        (("--host", ""), "http://0.0.0.0:8000/v1"),
        (("--uds", "/run/divprune.sock", "--port", "1"), "unix:/run/divprune.sock"),
        (("--ssl-keyfile", "key.pem", "--ssl_certfile", "cert.pem"), "https://127.0.0.1:8000/v1"),
        (("--config", "FILE"), "https://[::]:9000/v1"),
        (("--config=FILE", "--host", "127.0.0.1"), "https://127.0.0.1:9000/v1"),
        (("--enforce-eager", "--port", "80"), "http://127.0.0.1:80/v1"),
    ],
)
def test_addresses(flags: tuple[str, ...], address: str, config: Path) -> None:
    assert listening([flag.replace("FILE", str(config)) for flag in flags]).address == address


@pytest.mark.parametrize("port", ["", "x", "0", "65536", "-1", "8000.0"])
def test_ports_are_numbers(port: str) -> None:
    with pytest.raises(ServerError, match="between 1 and 65535"):
        listening(("--port", port))


def free(host: str, port: int) -> Listening:
    return Listening(host, port, None, has_tls=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_refused(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as used:
        try:
            used.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is in use; stop what listens there, or give another"):
            free(host, port).require_free()
    free(host, port).require_free()


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "no address of this machine"), ("no such host", "cannot be listened at")]
)
def test_addresses_of_others_are_refused(host: str, reason: str) -> None:
    with pytest.raises(ServerError, match=reason):
        free(host, 8000).require_free()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short, as names of sockets must be."""
    return tmp_path_factory.mktemp("s") / "s"


def at(path: Path) -> Listening:
    return Listening("", 8000, str(path), has_tls=False)


def test_a_socket_without_a_server_is_removed(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        with pytest.raises(ServerError, match="another server listens at"):
            at(place).require_free()
        assert place.exists()
    at(place).require_free()
    assert not place.exists()
    at(place).require_free()


def test_a_socket_replaces_no_file_and_needs_a_folder(place: Path) -> None:
    place.write_text("mine", encoding="utf-8")
    with pytest.raises(ServerError, match="would replace a file"):
        at(place).require_free()
    assert place.read_text(encoding="utf-8") == "mine"
    with pytest.raises(ServerError, match="folder of the socket is not there"):
        at(place.with_name("none") / "s").require_free()


HEAVY = ("torch", "transformers", "vllm", "huggingface_hub", "numpy")


def imported_by(*arguments: str) -> tuple[int, str, list[str]]:
    """The exit code of `divprune serve`, what it says, and which heavy packages it has imported by then."""
    code = f"""
import json, sys
from divprune.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code, [name for name in {HEAVY} if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code, "serve", *arguments], capture_output=True, text=True, check=True)
    number, names = json.loads(done.stdout.splitlines()[-1])
    return number, done.stderr, names


@pytest.mark.parametrize(
    ("model", "flags", "reason"),
    [
        ("nosuchfolder", (), "no such checkpoint directory: nosuchfolder; names of the hub have their owner in front"),
        ("./no/such/folder", (), "no such checkpoint directory: ./no/such/folder"),
        ("EMPTY", (), "is no checkpoint: it has no config.json"),
        ("DAMAGED", (), "config.json is no JSON"),
        ("some/model", ("--port", "x"), "the port must be a number"),
        ("some/model", ("--config", "none.yaml"), "vLLM's config file cannot be read: none.yaml"),
        ("some/model", ("--hf_overrides={}",), "hf-overrides is no flag to give to vLLM here"),
        ("some/model", ("--shutdown-timeout", "3"), "it is set by `divprune serve --grace`; leave it out"),
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(
    model: str, flags: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"architectures": [', encoding="utf-8")
    places = {"EMPTY": tmp_path, "DAMAGED": tmp_path / "damaged"}
    code, said, heavy = imported_by(str(places.get(model, model)), "--dry-run", "--", *flags)
    assert (code, heavy) == (2, [])
    assert reason in said
    assert len(said.splitlines()) == 1


def test_the_watcher_imports_little() -> None:
    code = f"import sys, divprune.serving.watch; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
