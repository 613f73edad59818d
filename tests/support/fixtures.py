"""Fixtures of the folders that compare logits; their conftest.py imports them."""

from collections.abc import Iterator

import pytest

from tests.support.float64 import compared, float32_is_float64


@pytest.fixture(autouse=True, scope="module")
def logits_in_float64() -> Iterator[None]:
    """The whole module in float64, models that its tests share too."""
    with float32_is_float64():
        yield


@pytest.fixture(autouse=True)
def compared_logits(request: pytest.FixtureRequest, logits_in_float64: None) -> Iterator[None]:
    """Each test in float64, but for those that say otherwise."""
    with compared(is_float64=request.node.get_closest_marker("float32") is None):
        yield
