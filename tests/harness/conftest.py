"""These tests run lmms-eval, in the evaluation environment only (make test-eval)."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

HAS_LMMS_EVAL = importlib.util.find_spec("lmms_eval") is not None
collect_ignore_glob = [] if HAS_LMMS_EVAL else ["test_*.py"]
if HAS_LMMS_EVAL:
    from tests.harness.scene_runs import one_index, run, tasks  # noqa: F401
    from tests.harness.task_fixtures import data, egoschema_stub, environment, judge_stub, manager, settings  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.harness)
