"""Serve a page from a thread of the tests, and browse it."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from divprune.checkpoints import LoadedModel
from divprune.web_demo import WebDemoOptions
from divprune.web_demo.server import demo_app

OPTIONS = WebDemoOptions(max_new_tokens=8, device="cpu")


@contextmanager
def served(loaded: LoadedModel) -> Iterator[str]:
    """The page's address."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(demo_app(OPTIONS, loaded), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield address
        server.should_exit = True
        thread.join()


@contextmanager
def browsing() -> Iterator[Any]:
    """Chromium; skipped where none is installed: playwright's own cannot be downloaded everywhere."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no chromium; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def serious_findings(page: Any) -> list[tuple[str, str]]:
    """What axe finds that keeps people from using a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        (violation["id"], node["html"])
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def scrolls_sideways(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def shown_tokens(page: Any, side: int) -> list[int]:
    """The tokens whose patches are bright, in pick order."""
    script = """(overlay) => [...overlay.querySelectorAll(".dp-patch")]
      .filter((patch) => patch.style.display !== "none")
      .sort((a, b) => a.dataset.pick - b.dataset.pick).map((patch) => Number(patch.dataset.token))"""
    tokens: list[int] = page.locator(".dp-overlay").nth(side).evaluate(script)
    return tokens
