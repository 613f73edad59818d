"""Small records, made by the code that makes the real ones."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import answers, encoder, samples, selection
from divprune.cli.main import app
from divprune.efficiency.subject import BenchOptions, load_subject
from divprune.encoder_options import TomeEncoder
from divprune.figures import Drawing, Sources, draw_figures
from divprune.records import Record

COMMITTED = Path(__file__).parent.parent.parent / "results"
METHODS = "divprune random fastv vtw:layer=2 norm"


def command(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every record that a figure is drawn from."""
    folder = tmp_path_factory.mktemp("results")
    shares = ("--keep-ratio", 0.5, "--keep-ratio", 0.098)
    command("eval", "--limit", 2, "--methods", METHODS, *shares, "--output", folder)
    command("bench", "--no-memory", "--new-tokens", 2, "--repeats", 1, "--output", folder)
    merging = encoder.variants((TomeEncoder(8),), 25)
    encoder.measured("embedded", partial(load_subject, BenchOptions()), merging, repeats=1).save(folder)
    samples.measured(2).save(folder)
    answers.measured().save(folder)
    rows = [
        selection.compare(features, total, 32, num_keep, repeats=1)
        for features in selection.FEATURES
        for total, num_keep in ((64, 6), (144, 14))
    ]
    config = {"warm_up": selection.WARM_UP, "repeats": 1, "seed": 0, "dtype": "float32", "device": "cpu"}
    Record("selection", config, rows).save(folder)
    # It takes a tower of the real size.
    shutil.copy(COMMITTED / "photograph.json", folder)
    return folder


@pytest.fixture(scope="session")
def drawing(results: Path) -> Drawing:
    """Every figure, drawn."""
    return draw_figures(Sources(results))
