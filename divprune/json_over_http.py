"""JSON over HTTP with Python's own means, and what can go wrong with it."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_SECONDS = 60.0


class NoAnswerError(Exception):
    """A server did not answer, or not as it should.

    Attributes:
        status: its HTTP status, None if there was no answer.
        final: asking again cannot help: the request itself was refused.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        # A busy server (408, 409, 425, 429) may answer later; any other 4xx means that the request is not allowed.
        self.final = status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429)


def post_json(url: str, payload: Any, headers: Mapping[str, str], timeout: float = TIMEOUT_SECONDS) -> str:
    """Send a value as JSON and return the answer's text.

    Raises:
        NoAnswerError: there was none, or its status is not 200.
    """
    body = json.dumps(payload).encode()
    request = _request(url, body, {"Content-Type": "application/json", **headers})
    return _text_of(request, timeout)


def get_text(url: str, headers: Mapping[str, str], timeout: float = TIMEOUT_SECONDS) -> str:
    """Return what is at an address.

    Raises:
        NoAnswerError: there was no answer, or its status is not 200.
    """
    return _text_of(_request(url, None, headers), timeout)


def answers(url: str, timeout: float = TIMEOUT_SECONDS) -> None:
    """Only see whether there is a server behind an address, by asking for the address itself.

    An address for POST may refuse to be read (405) and is there all the same; 404 and 5xx mean that it is not.

    Raises:
        NoAnswerError: nothing is there.
    """
    try:
        _text_of(_request(url, None, {}), timeout)
    except NoAnswerError as error:
        if error.status is None or error.status == 404 or error.status >= 500:
            raise


def _request(url: str, body: bytes | None, headers: Mapping[str, str]) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        raise NoAnswerError(f"its address must begin with http:// or https://, got {url!r}", status=400)
    return urllib.request.Request(url, data=body, headers=dict(headers))


def _text_of(request: urllib.request.Request, timeout: float) -> str:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text: str = answer.read().decode("utf-8", errors="replace")
    except urllib.error.HTTPError as error:
        detail = error.read().decode("utf-8", errors="replace").strip()[:200]
        raise NoAnswerError(f"HTTP {error.code}" + (f": {detail}" if detail else ""), error.code) from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    return text
