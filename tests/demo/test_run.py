"""What the commands do is done from Python by one function, which tells its progress and names its own arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from divprune.demo import DemoOptions, run_demo
from divprune.embedded.examples import bundled_scenes
from divprune.errors import ArgumentError
from divprune.media import Medium


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.descriptions: list[str] = []
        self.num_steps = 0
        self.notes: list[str] = []

    @contextmanager
    def working(self, description: str) -> Iterator[None]:
        self.descriptions.append(description)
        yield

    @contextmanager
    def counting(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        self.descriptions.append(description)
        yield self._step
        assert self.num_steps == total

    def _step(self, num_steps: int) -> None:
        self.num_steps += num_steps

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_demonstration_from_python(tmp_path: Path) -> None:
    told, report = Told(), tmp_path / "report.html"
    options = DemoOptions(prompts=("How many objects are there?",), num_keep=8, max_new_tokens=2, repeats=1)
    demo = run_demo(options, told)
    assert [row.example.prompt for row in demo.rows] == ["How many objects are there?"] * 4
    assert {row.pruned.num_kept for row in demo.rows} == {8}
    assert demo.summary.num_kept == 32
    assert told.descriptions[-1] == "answering"
    with pytest.raises(ArgumentError, match=r"`report` .* there is no directory"):
        run_demo(DemoOptions(report=report / "page.html"))


def test_an_image_for_the_embedded_model_gets_a_note(tmp_path: Path) -> None:
    (shown,) = {example.media[0].name: example.media[0] for example in bundled_scenes(["What?"])[:1]}.values()
    assert isinstance(shown, Medium)
    shown.frames[0].save(tmp_path / "scene.png")
    told = Told()
    run_demo(DemoOptions(images=(tmp_path / "scene.png",), max_new_tokens=2, repeats=1, compare=False), told)
    assert told.notes == ["the embedded model knows generated scenes only; give `model` for photographs"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DemoOptions(keep_ratio=0.5, num_keep=5), "give `keep_ratio` or `num_keep`, not both"),
        (DemoOptions(prompts=(" ",)), "`prompts` is empty"),
        (DemoOptions(method="vtw", num_keep=3), "`keep_ratio` and `num_keep` must be left out with 'vtw'"),
    ],
)
def test_errors_name_arguments(options: DemoOptions, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_demo(options)
