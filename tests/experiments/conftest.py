"""Models to plan for."""

import pytest
from transformers import AutoConfig

from divprune.efficiency.shapes import model_shape
from divprune.embedded import checkpoint_path
from divprune.experiments.subjects import Subject, other_subject, paper_subject


@pytest.fixture(scope="session")
def embedded() -> Subject:
    """4 layers, 256 visual tokens."""
    return other_subject("embedded", model_shape(AutoConfig.from_pretrained(checkpoint_path())), 256)


@pytest.fixture(scope="session")
def llava() -> Subject:
    return paper_subject("llava-1.5-7b")
