"""What the commands do is done from Python by one function, which tells its progress and names its own arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from divprune.config import PruningConfig
from divprune.demo import DemoOptions, run_demo
from divprune.demo.answering import AnswerPair, random_control
from divprune.demo.summary import Summary
from divprune.efficiency import Latency
from divprune.embedded.examples import Example, bundled_scenes
from divprune.errors import ArgumentError
from divprune.media import Medium
from divprune.methods import RandomTokens


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


def pair(answer: str, unpruned: str, expected: str | None = None) -> AnswerPair:
    example, latency = Example((), "what?", expected), Latency((1.0,))
    return AnswerPair(example, answer, unpruned, kept_of_100(30), latency, latency, 0.0)


def kept_of_100(num_kept: int, num_encoded: int = 100) -> Any:
    return SimpleNamespace(num_visual_tokens=100, num_encoded=num_encoded, num_kept=num_kept)


def test_two_empty_answers_are_no_answer_that_stays() -> None:
    assert pair("yes", "yes").same_answer
    assert not pair("no", "yes").same_answer
    assert not pair("", "").same_answer
    assert Summary([pair("", ""), pair("a", "a")]).num_same == 1


def test_tokens_of_a_prompt_are_told_with_what_was_encoded() -> None:
    whole, less = pair("a", "a"), replace(pair("a", "a"), pruned=kept_of_100(30, num_encoded=60))
    assert Summary([whole]).tokens_per_prompt == "100 → 30"
    assert Summary([whole, less]).tokens_per_prompt == "100 → 60-100 → 30"


def test_random_tokens_are_as_many_as_the_method_kept() -> None:
    report = kept_of_100(30)
    control = random_control(PruningConfig.parse("divprune", num_keep=30), report)
    assert control is not None
    assert (control.method, control.num_keep) == (RandomTokens(), 30)
    found = random_control(PruningConfig.parse("prumerge"), report)
    assert found is not None
    assert (found.method, found.keep_ratio) == (RandomTokens(), 0.3)
    for config in (PruningConfig.parse("random", num_keep=30), PruningConfig.parse("vtw")):
        assert random_control(config, report) is None
    less = PruningConfig.parse("divprune:min_distance=0.1", num_keep=40, encoder="tome:r=2")
    found = random_control(less, kept_of_100(30, num_encoded=60))
    assert found is not None
    assert (found.encoder, found.keep_ratio) == (less.encoder, 0.5)


def test_ratios_of_a_report_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="keep_ratio must be in"):
        run_demo(DemoOptions(report=tmp_path / "a.html", report_ratios=(1.5,)))
    with pytest.raises(ArgumentError, match="`report_ratios` is of a report"):
        run_demo(DemoOptions(report_ratios=(0.5,)))


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
