"""The inputs for comparing with authors' code: the same numbers anywhere, and picks that are the methods' own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from divprune.methods.registry import built_in, get_method
from tools.fidelity_inputs import KINDS, NUM_KEEP, comparable, image_inputs, picks, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    write(place, 1)
    return place


def test_inputs_are_those_of_their_seed(folder: Path) -> None:
    for name, (draw, _) in KINDS.items():
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
    # What has no paper, what withdraws all tokens, and what needs a recipe or works on pixels has nothing to compare.
    papers = {method.name for method in built_in() if method.paper is not None}
    assert {name for name in found["picks"] if ":" not in name} == papers - {"vtw", "fitprune"}
    kinds = comparable()
    assert {kinds[name] for name in ("dycoke", "vidcom2", "prunevid", "holitom", "fastvid", "flashvid")} == {"video"}
    assert (kinds["globalcom2"], kinds["hiprune"], kinds["vscan"]) == ("tiles", "image", "image")
    for name in ("pact", "dart", "flashvid:layer=20", "holitom:layer=18", "prunevid:layer=10", "vscan:layer=16"):
        assert kinds[name] == "inside"


def test_tiles_share_by_the_thumbnails_attention() -> None:
    """GlobalCom2 keeps some of the thumbnail and of each of the four tiles."""
    place = torch.tensor(picks(get_method("globalcom2"), KINDS["tiles"][0](0), "tiles"))
    grid = place[place >= 64] - 64
    tiles = grid // 16 // 8 * 2 + grid % 16 // 8
    assert (place < 64).sum() > 0
    assert tiles.bincount(minlength=4).min() > 0
