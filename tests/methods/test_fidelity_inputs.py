"""The inputs for comparing with authors' code: the same numbers anywhere, and picks that are the methods' own."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tools.fidelity_inputs import NUM_KEEP, comparable, image_inputs, video_inputs, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    write(place, 1)
    return place


def test_inputs_are_those_of_their_seed(folder: Path) -> None:
    for name, draw in (("image", image_inputs), ("video", video_inputs)):
        stored, drawn = load_file(folder / f"{name}-0.safetensors"), draw(0)
        assert stored.keys() == drawn.keys()
        assert all(stored[key].dtype == np.float64 and np.array_equal(stored[key], drawn[key]) for key in drawn)
        assert not np.array_equal(drawn["visual_tokens"], draw(1)["visual_tokens"])
    # NumPy promises the stream of a seeded generator.
    assert image_inputs(0)["visual_tokens"][0, 0] == pytest.approx(0.12573022, abs=1e-8)


def test_picks_are_distinct_and_of_every_comparable_method(folder: Path) -> None:
    found = json.loads((folder / "picks.json").read_text())
    assert found["num_keep"] == NUM_KEEP
    assert found["picks"].keys() == comparable().keys()
    for name, seeds in found["picks"].items():
        assert len(set(seeds["0"])) == len(seeds["0"]) <= NUM_KEEP, name
    assert {"divprune", "otprune", "eadp", "flashvid"} <= found["picks"].keys()
    assert not {"fastv", "vtw", "random"} & found["picks"].keys()
