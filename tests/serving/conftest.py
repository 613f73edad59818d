"""Most of these tests run a real engine, in the serving environment only (make test-serving)."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Read by vLLM when it is imported, and by its processes.
os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1",  # GiB
    VLLM_CPU_OMP_THREADS_BIND="nobind",  # else the engines of all test processes would share the first cores
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # the engine runs in the test's own process
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
    VLLM_LOGGING_LEVEL="ERROR",
)

HAS_VLLM = importlib.util.find_spec("vllm") is not None
ANYWHERE = tuple(
    f"test_{name}.py"
    for name in ("answers", "going_on", "interrupts", "listening", "questions", "servers", "vllm_flags", "watch")
)
"""Tests of files and processes, without an engine."""
WITH_ENGINE = sorted({path.name for path in Path(__file__).parent.glob("test_*.py")} - set(ANYWHERE))
collect_ignore = [] if HAS_VLLM else WITH_ENGINE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in WITH_ENGINE:
            item.add_marker(pytest.mark.serving)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint(name)` writes a family's checkpoint once."""
    from tests.serving.writers import WRITERS

    root = tmp_path_factory.mktemp("checkpoints")

    def folder_of(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            WRITERS[name](folder)
        return folder

    return folder_of


@pytest.fixture(scope="module")
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """`engine(name, **settings)` starts an engine; the one before is stopped."""
    from tests.serving.engines import Engines

    engines = Engines(checkpoint)
    yield engines.start
    engines.stop()


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose files the server may read."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def server(
    checkpoint: Callable[[str], Path], media_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server that keeps a quarter of the tokens, and less where a request asks for less."""
    from tests.serving.servers import running_server

    log = tmp_path_factory.mktemp("server") / "log.txt"
    arguments = ("--keep-ratio", "0.25", "--allow-request-ratio")
    flags = ("--allowed-local-media-path", str(media_folder))
    with running_server(checkpoint("llava"), log, arguments, flags) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture
def client(server: Any) -> Any:
    from tests.serving.clients import Client

    return Client(server.address)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the server's log where a test of it failed."""
    report = (yield).get_result()
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and server is not None:
        report.sections.append(("end of the server's log", server.told()[-4000:]))
