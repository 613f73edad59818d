"""Images by URL: data: as the OpenAI API takes them, http(s) only where that is allowed; never shown whole."""

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image

from divprune.errors import MediaError
from divprune.media import load_image, shown_name
from divprune.media import sources as media_sources

MOST_SHOWN = 100  # characters of a URL
COLOR = (200, 30, 60)


def png(size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = png()
BASE64 = base64.b64encode(CONTENT).decode()


class Server(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        kind, _, target = self.path.removeprefix("/").partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", target.replace("HERE", f"http://{self.headers['Host']}"))
            self.end_headers()
            return
        self.send_response(404 if kind == "none" else 200)
        self.end_headers()
        try:
            if kind == "image":
                self.wfile.write(CONTENT)
            while kind == "endless":
                self.wfile.write(bytes(2**16))
            while kind == "slow" and not self.server.is_over.wait(0.02):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.is_over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.is_over.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;charset=utf-8;BASE64,{BASE64}",
        f"data:;base64,{BASE64[:100]}\n{BASE64[100:]}",
        f"data:image/png;base64,{BASE64.replace('+', '%2B').replace('/', '%2F')}",
        f"data:image/png,{quote_from_bytes(CONTENT)}",
    ],
    ids=["plain", "capitals", "lines", "escaped", "percent"],
)
def test_data_urls_hold_images(tmp_path: Path, url: str) -> None:
    (tmp_path / "image.png").write_bytes(CONTENT)
    medium = load_image(url)
    assert medium.frames[0].tobytes() == load_image(tmp_path / "image.png").frames[0].tobytes()
    assert len(medium.name) <= MOST_SHOWN
    assert url.startswith(medium.name.removesuffix("..."))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"data:image/png;base64;{BASE64}", "no comma"),
        (f"data:image/png;base64,{BASE64}*", "is not base64"),
        (f"data:image/png;base64,{BASE64[:-1]}", "is not base64"),
        ("data:text/plain,hello", "not an image that Pillow can read"),
        (f"data:image/svg+xml,{'<svg>' * 900}", "an SVG: render the page first"),
        (f"data:image/png;base64,{BASE64[:400]}", "truncated or damaged"),
        (f"https://example.org/{'a' * 4000}.png", "unless `allow_download` is given"),
    ],
)
def test_wrong_urls_are_refused_in_a_line(url: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as refusal:
        load_image(url)
    assert len(url) <= MOST_SHOWN or url[: MOST_SHOWN + 1] not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_paths_are_shown_as_given() -> None:
    assert shown_name(Path("a/b.png")) == str(Path("a/b.png"))
    assert shown_name("x" * 200) == "x" * 200
    assert shown_name("http://a/b.png") == "http://a/b.png"


def test_downloads_have_to_be_allowed(address: str) -> None:
    for url in (f"{address}/image", f"{address}/image".replace("http:", "HTTP:"), f"{address}/to/HERE/image"):
        with pytest.raises(MediaError, match="is not downloaded unless `allow_download` is given"):
            load_image(url)
        assert load_image(url, allow_download=True).frames[0].size == (64, 48)


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:image/png;base64,AAAA", "HERE/to/"]
)
def test_no_redirection_leads_to_another_kind_of_address(address: str, target: str) -> None:
    with pytest.raises(MediaError, match="cannot be downloaded"):
        load_image(f"{address}/to/{target}", allow_download=True)


def test_downloads_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="cannot be downloaded: HTTP Error 404"):
        load_image(f"{address}/none", allow_download=True)
    monkeypatch.setattr(media_sources, "_MAX_BYTES", 2**20)
    with pytest.raises(MediaError, match="has more than 1,048,576 bytes"):
        load_image(f"{address}/endless", allow_download=True)
    monkeypatch.setattr(media_sources, "_MAX_SECONDS", 0.3)
    with pytest.raises(MediaError, match=r"takes longer than 0\.3 seconds"):
        load_image(f"{address}/slow", allow_download=True)


def test_nobody_there_is_said(address: str) -> None:
    with pytest.raises(MediaError, match="cannot be downloaded"):
        load_image("http://127.0.0.1:9/image.png", allow_download=True)
