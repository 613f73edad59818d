"""Stubs on this machine: a judge behind OpenAI's protocol, and EgoSchema's validation server."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str]


class Stub:
    """Answers requests; `answer` may be exchanged while it runs.

    Attributes:
        requests: method, path, headers and content of each, in order.
    """

    def __init__(self, answer: Callable[[str, Any], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.url = ""

    @property
    def posts(self) -> list[Any]:
        return [content for method, *_, content in self.requests if method == "POST"]

    @contextmanager
    def running(self, path: str, *others: str) -> Iterator["Stub"]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self) -> None:
                self._answer("GET", None)

            def _answer(self, method: str, content: Any) -> None:
                stub.requests.append((method, self.path, dict(self.headers), content))
                status, text = (
                    (404, "no such path") if self.path not in (path, *others) else stub.answer(method, content)
                )
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}{path}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def completion(said: str) -> Answer:
    """What OpenAI's chat completions answer."""
    message = {"role": "assistant", "content": said}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return 200, json.dumps({"id": "1", "object": "chat.completion", "model": "stub-judge", "choices": choices})


def judge(method: str, content: Any) -> Answer:
    """A judge to whom an answer is right if it is the expected one."""
    asked = content["messages"][-1]["content"]
    found = re.search(r"Correct Answer: (.*)\nPredicted Answer: (.*)\n", asked)
    if found is None:
        return completion("Yes.")
    right = found[1] == found[2]
    if "temporal accuracy" in asked:
        return completion("{''score': %s}" % (5 if right else 0))
    return completion(str({"pred": "yes" if right else "no", "score": 4.8 if right else 0}))


def egoschema_server(expected: dict[str, int]) -> Callable[[str, Any], Answer]:
    def answer(method: str, content: Any) -> Answer:
        if method != "POST":
            return 405, "Method Not Allowed"
        right = sum(content.get(name) == option for name, option in expected.items())
        wrong = len(content) - right
        missing = len(expected) - len(content)
        share = right / len(expected)
        return 200, (
            f"Total result: {right} correct, {wrong} wrong, {missing} missing, 0 invalid, accuracy: {share}\n"
            f"Subset result: 0 correct, 0 wrong, 0 missing, 0 invalid, accuracy: 0.0"
        )

    return answer
