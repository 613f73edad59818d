"""What the tests of tasks share: the data of all sixteen data sets, one index of tasks, and the servers."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.harness.data_schemas import write_all
from tests.harness.language_data import write_language_data
from tests.harness.servers import Stub, egoschema_server, judge

EXPECTED = {f"0074f737-{place}": place for place in range(4)}


# One for all that ask, fixture or not: indexing takes seconds.
@lru_cache
def indexed(folder: Path | None) -> Any:
    from divprune.lmms_eval_plugin.data.local_data import task_manager

    return task_manager(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.getbasetemp() / "data")


@pytest.fixture(scope="session")
def manager(data: Path) -> Any:
    return indexed(data)


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No network, caches of our own, and lmms-eval's waits between its tries left out."""
    import nltk
    from lmms_eval.api.task import ConfigurableTask
    from tenacity import wait_none

    nltk.data.path.insert(0, str(write_language_data(tmp_path_factory.mktemp("nltk"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        for name in ("OPENAI_API_KEY", "OPENAI_API_URL", "MODEL_VERSION", "API_TYPE", "HF_HOME"):
            patch.delenv(name, raising=False)
        for function in (ConfigurableTask.process_results, ConfigurableTask.download):
            patch.setattr(function.retry, "wait", wait_none())
        yield
    nltk.data.path.pop(0)


@pytest.fixture
def judge_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    from divprune.lmms_eval_plugin.scoring.judge import close_benches

    with Stub(judge).running("/v1/chat/completions") as stub:
        monkeypatch.setenv("OPENAI_API_URL", stub.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key")
        monkeypatch.setenv("MODEL_VERSION", "stub-judge")
        close_benches()
        yield stub
        close_benches()


@pytest.fixture
def egoschema_stub() -> Iterator[Stub]:
    with Stub(egoschema_server(EXPECTED)).running("/api/upload/") as stub:
        yield stub


@pytest.fixture
def settings(tmp_path: Path, egoschema_stub: Stub) -> Iterator[Any]:
    """Scoring without Java, with answers kept in a folder of the test."""
    from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings, use

    wanted = ScoringSettings("python", tmp_path / "kept", egoschema_stub.url, tries=2, wait_seconds=0.0)
    with use(wanted):
        yield wanted
