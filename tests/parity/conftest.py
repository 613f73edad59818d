"""Options of the suite.

`--write-support`: it writes divprune/huggingface/families/support.json instead of comparing with it. `--device cuda`:
its models, and all that they are compared with, are on a GPU. `--shard 2/8`: the second of eight parts of the cells.
`benchmarks.gpu` uses both.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from divprune.huggingface.families.support import Cell
from tests.parity.modes import is_among_few
from tests.parity.record import Found, write_support
from tests.support.fixtures import compared_logits, logits_in_float64
from tests.support.on_device import everything_on

__all__ = ["compared_logits", "logits_in_float64"]


class SupportWriter:
    """Gathers the outcomes, which travel from xdist's workers as properties of the reports, and writes them."""

    def __init__(self) -> None:
        self._found: Found = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "cell":
                family, mode, cell = value
                self._found.setdefault(family, {})[mode] = Cell.from_json(cell)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            write_support(self._found)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-support", action="store_true", help="write the outcomes to the support file")
    parser.addoption("--shard", metavar="NUMBER/PARTS", help="a part of the cells")
    parser.addoption("--device", help="where models and tensors are; by default wherever torch puts them")


@pytest.fixture(autouse=True)
def on_device(request: pytest.FixtureRequest, compared_logits: None) -> Iterator[None]:
    device = request.config.getoption("--device", default=None)
    if device is None:
        yield
        return
    with everything_on(device):
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted, left = config.getoption("--cells"), []
    if wanted != "all":
        left = [item for item in items if is_cell(item) and is_among_few(**item.callspec.params) != (wanted == "few")]
    if shard := config.getoption("--shard", default=None):
        number, parts = map(int, shard.split("/"))
        cells = [item for item in items if is_cell(item)]
        left += [cell for place, cell in enumerate(cells) if place % parts != number - 1]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


def is_cell(item: Any) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == "test_cell"


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if config.getoption("--write-support", default=False) and not is_worker:
        config.pluginmanager.register(SupportWriter())
