"""One embedded model for all tests; pages with it behind them, and visitors, are made by the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from divprune.checkpoints import LoadedModel, load_model
from divprune.embedded.examples import Example, bundled_scenes
from divprune.web_demo.session import Session
from divprune.web_demo.shared_model import SharedModel


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return load_model(None, torch.device("cpu"), "float32")


@pytest.fixture
def untouched(loaded: LoadedModel) -> Iterator[None]:
    """After the test the model is as it was."""
    before = dict(vars(loaded.model))
    yield
    assert vars(loaded.model) == before


@pytest.fixture
def shared(loaded: LoadedModel, untouched: None) -> SharedModel:
    return SharedModel(loaded, max_new_tokens=8)


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """One question about each bundled scene."""
    return bundled_scenes(["How many objects are there?"])


@pytest.fixture
def session(shared: SharedModel, examples: list[Example]) -> Session:
    return Session(shared, examples[0])


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """Not square, and no scene."""
    path = tmp_path / "gradient.png"
    Image.linear_gradient("L").resize((90, 60)).convert("RGB").save(path)
    return path
