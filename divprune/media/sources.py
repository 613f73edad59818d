"""Find what a user names: a file, a data: URL, or an address to download from."""

import base64
import io
import time
import urllib.request
from binascii import Error as Base64Error
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from divprune.errors import MediaError, first_line

_URLS = ("data:", "http://", "https://")
_MAX_NAME = 80  # characters of a URL that are shown
_MAX_BYTES = 2**26
_MAX_SECONDS = 30.0
_HEAD = 1024

# What holds one of these near its beginning has to be drawn to have pixels.
_DOCUMENTS = {b"%PDF-": "a PDF", b"%!PS": "PostScript", b"<svg": "an SVG"}
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def is_url(source: Path | str) -> bool:
    """Tell whether an image is named by a data: or http(s) URL."""
    return isinstance(source, str) and source[:8].lower().startswith(_URLS)


def shown_name(source: Path | str) -> str:
    """Return what an image is called in messages and results: its path, or the beginning of its URL."""
    text = str(source)
    return text if not is_url(source) or len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."


def open_image(source: Path | str, allow_download: bool) -> BinaryIO:
    """Open an image's file, or what its URL holds.

    Raises:
        MediaError: it is missing, malformed, cannot be downloaded or may not be.
    """
    if not is_url(source):
        return open_file(Path(source), "image")
    url = str(source)
    return io.BytesIO(_decoded(url) if url[:5].lower() == "data:" else _downloaded(url, allow_download))


def open_file(path: Path, what: str) -> BinaryIO:
    """Open a file.

    Raises:
        MediaError: nothing is there, or a folder is, or it cannot be read.
    """
    if not path.exists():
        raise MediaError(f"no such {what}: {path}")
    if not path.is_file():
        raise MediaError(f"{path} is not a file; give one {what} at a time")
    try:
        return path.open("rb")
    except PermissionError:
        raise MediaError(f"no permission to read {path}") from None


def advice_on(file: BinaryIO, name: str) -> str:
    """Return what to do about a file that Pillow does not open, by how it begins."""
    file.seek(0)
    head = file.read(_HEAD)
    for mark, what in _DOCUMENTS.items():
        if mark in head or (mark == b"<svg" and name.lower().endswith(".svgz")):
            return f"it is {what}: render the page first, such as to PNG"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "it is HEIC: save it as JPEG or PNG, or register a HEIC plugin with Pillow"
    return "a video goes with `videos`"


def _decoded(url: str) -> bytes:
    """Return the content of a data: URL."""
    header, comma, payload = url.partition(",")
    if not comma:
        raise MediaError(f"{shown_name(url)} is no data: URL: there is no comma in front of the content")
    content = unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except Base64Error as error:
        raise MediaError(f"{shown_name(url)} is not base64: {first_line(error)}") from None


def _downloaded(url: str, allowed: bool) -> bytes:
    """Return what lies at an http(s) address; other kinds of address are not followed, not even by redirection."""
    name = shown_name(url)
    if not allowed:
        raise MediaError(f"{name} is not downloaded unless `allow_download` is given")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    deadline, content = time.monotonic() + _MAX_SECONDS, bytearray()
    try:
        with opener.open(url, timeout=_MAX_SECONDS) as response:
            # Whatever has come is read, so that a slow sender cannot hold a read for ever.
            while piece := response.read1(2**16):
                content += piece
                if len(content) > _MAX_BYTES:
                    raise MediaError(f"{name} has more than {_MAX_BYTES:,} bytes; download it yourself")
                if time.monotonic() > deadline:
                    raise MediaError(f"{name} takes longer than {_MAX_SECONDS:g} seconds; download it yourself")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{name} cannot be downloaded: {first_line(error)[:_MAX_NAME]}") from None
    return bytes(content)
