"""A command line to call in process, small checkpoints, and media to ask about."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.rich_utils  # noqa: F401  # reads FORCE_COLOR when it is imported, which `terminal` sets for one test
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from divprune.cli.main import app
from tests.support import checkpoint_writers

RESULTS = Path(__file__).parent.parent.parent / "results"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line on standard error."""
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


Command = Callable[..., Outcome]


@pytest.fixture
def divprune() -> Command:
    """Call the command line in this process: `divprune("run", "--image", path)`."""

    def call(*arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            print(result.exception, file=sys.stderr)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands write as to a terminal of 80 columns without colours."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def llava(checkpoints: Path) -> Path:
    """16 tokens a picture."""
    return checkpoint_writers.write_llava(checkpoints / "llava")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder with one record, from which one figure is drawn."""
    folder = tmp_path / "records"
    folder.mkdir()
    shutil.copy(RESULTS / "selection.json", folder)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photograph, 451 x 300."""
    path = tmp_path_factory.mktemp("pictures") / "chelsea.png"
    Image.fromarray(data.chelsea()).save(path)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames, 160 x 120: a window that slides over the photograph."""
    path = tmp_path_factory.mktemp("clips") / "slide.mp4"
    write_clip(path, num_frames=30)
    return path


def write_clip(path: Path, num_frames: int, codec: str = "mpeg4") -> None:
    av = pytest.importorskip("av")
    photograph = Image.fromarray(data.chelsea())
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(num_frames):
            window = photograph.crop((4 * index, 2 * index, 4 * index + 240, 2 * index + 180)).resize((160, 120))
            for packet in stream.encode(av.VideoFrame.from_image(window)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
