"""Whatever happens between two runs of a batch, the last one ends with exactly the answers of one clean run."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="the serving environment does without")

from hypothesis import given, settings
from hypothesis import strategies as st

from divprune.errors import BatchError
from divprune.serving import run
from divprune.serving.answers import Answer
from divprune.serving.engine import EngineSettings
from divprune.serving.questions import BatchQuestion
from divprune.serving.run import BatchOptions, answer_batch

CONTENTS = (b"a circle", b"a square", b"damaged")
PROMPTS = ("What?", "Where?\u2028And\x85when?")
KEYS = ("question_sha256", "question_names_sha256")


class Killed(BaseException):
    """The process ends here; nothing of ours may run any more."""


@dataclass
class FakeEngine:
    """Answers by what it sees, and is killed after so many answers."""

    lives: int | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, settings: EngineSettings, questions: Sequence[BatchQuestion]) -> Iterator[Answer]:
        for question in questions:
            if self.lives is not None and len(self.asked) >= self.lives:
                raise Killed
            self.asked.append(question.id)
            yield seen(question, str(settings))


def seen(question: BatchQuestion, settings: str) -> Answer:
    contents = [path.read_bytes() if path.exists() else b"damaged" for path in question.files]
    answer = Answer(question.id, question.prompt, question.image_names, settings)
    if b"damaged" in contents:
        return replace(answer, error="an image is damaged")
    return replace(answer, answer=f"{question.prompt}\x85 {hashlib.sha256(b''.join(contents)).hexdigest()[:8]}\u2029")


@dataclass
class World:
    """A folder of images or a file of questions, as a user would change it between two runs."""

    root: Path
    is_folder: bool
    images: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    prompt: str = PROMPTS[0]
    clock: int = 1_000_000_000
    count: int = 0

    @property
    def source(self) -> Path:
        return self.root / "images" if self.is_folder else self.root / "questions.jsonl"

    @property
    def output(self) -> Path:
        return self.root / "answers.jsonl"

    def options(self, output: Path, trust_names: bool) -> BatchOptions:
        return BatchOptions("a-model", self.source, output, prompt=self.prompt, trust_names=trust_names)

    def path(self, number: int) -> Path:
        return self.root / "images" / self.images[number % len(self.images)]

    def write(self, path: Path, content: bytes) -> None:
        """Write a file as an editor would: at a later time than all before."""
        path.write_bytes(content)
        self.touch(path)

    def touch(self, path: Path) -> None:
        if path.exists():
            self.clock += 1
            os.utime(path, ns=(self.clock, self.clock))

    def new_name(self) -> str:
        self.count += 1
        return f"{self.count}\u2028.png"

    def add_image(self, content: int, place: int) -> None:
        self.images.append(self.new_name())
        self.write(self.path(len(self.images) - 1), CONTENTS[content])
        self.insert(len(self.images) - 1, 0, place)

    def insert(self, image: int, prompt: int, place: int) -> None:
        line: dict[str, Any] = {"image": image % len(self.images)}
        if prompt:
            line["prompt"] = PROMPTS[prompt - 1]
        if place % 3 == 2:
            self.count += 1
            line["id"] = f"id {self.count}"
        self.lines.insert(place % (len(self.lines) + 1), line)

    def remove_line(self, place: int) -> None:
        if len(self.lines) > 1:
            del self.lines[place % len(self.lines)]

    def change_line(self, place: int, prompt: int) -> None:
        self.lines[place % len(self.lines)]["prompt"] = PROMPTS[prompt]

    def change_prompt(self, prompt: int) -> None:
        self.prompt = PROMPTS[prompt]

    def edit(self, image: int, content: int) -> None:
        self.write(self.path(image), CONTENTS[content])

    def lose(self, image: int) -> None:
        self.path(image).unlink(missing_ok=True)

    def touch_image(self, image: int) -> None:
        self.touch(self.path(image))

    def rename(self, image: int) -> None:
        old, name = self.path(image), self.new_name()
        self.images[image % len(self.images)] = name
        if old.exists():
            old.rename(self.root / "images" / name)

    def exchange(self, first: int, second: int) -> None:
        one, two, spare = self.path(first), self.path(second), self.root / "spare"
        if one != two and one.exists() and two.exists():
            one.rename(spare)
            two.rename(one)
            spare.rename(two)

    def save(self) -> None:
        rows = [line | {"image": f"images/{self.images[line['image']]}"} for line in self.lines]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (self.root / "questions.jsonl").write_bytes(text.encode("utf-8-sig"))

    def run(self, output: Path, engine: FakeEngine, trust_names: bool = False) -> bool:
        """Run a batch; whether it came to its end."""
        self.save()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(run, "answers_here", engine)
            patched.setattr(run, "require_vllm", lambda: None)
            try:
                answer_batch(self.options(output, trust_names))
            except Killed:
                return False
        return True


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return [{name: value for name, value in row.items() if name not in KEYS} for row in rows]


def killed_run(world: World, lives: int, torn: int, trust_names: bool) -> None:
    """Run, be killed after so many answers, and lose the end of the last line, or more if it had none."""
    before = world.output.read_bytes() if world.output.exists() else b""
    engine = FakeEngine(lives)
    ended, refusal = False, ""
    try:
        ended = world.run(world.output, engine, trust_names)
    except BatchError as error:
        # An image of an answered question is lost, or a folder is empty: nothing has happened.
        refusal = str(error)
    if refusal:
        assert "cannot be read any more" in refusal or "holds nothing to ask about" in refusal
        assert (world.output.read_bytes() if world.output.exists() else b"") == before
        return
    if not ended and engine.asked:
        whole = world.output.read_bytes()
        last = len(whole) - whole[:-1].rfind(b"\n") - 1
        # A first line is there whole or not at all; of others any part may be.
        is_first = last == len(whole)
        world.output.write_bytes(whole[: len(whole) - min(0 if is_first else torn, last - 1)])


numbers = st.integers(0, 5)
changes = st.one_of(
    st.tuples(st.just("insert"), numbers, st.integers(0, 2), numbers),
    st.tuples(st.just("add_image"), st.integers(0, 2), numbers),
    st.tuples(st.just("remove_line"), numbers),
    st.tuples(st.just("change_line"), numbers, st.integers(0, 1)),
    st.tuples(st.just("change_prompt"), st.integers(0, 1)),
    st.tuples(st.just("edit"), numbers, st.integers(0, 2)),
    st.tuples(st.just("lose"), numbers),
    st.tuples(st.just("touch_image"), numbers),
    st.tuples(st.just("rename"), numbers),
    st.tuples(st.just("exchange"), numbers, numbers),
)
runs = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 9, 60, 400]), st.booleans())
rounds = st.lists(st.tuples(runs, st.lists(changes, max_size=4)), max_size=5)


@pytest.mark.timeout(600)
@settings(max_examples=50)
@given(is_folder=st.booleans(), rounds=rounds)
def test_any_sequence_ends_with_the_answers_of_one_clean_run(is_folder: bool, rounds: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), is_folder)
        (world.root / "images").mkdir()
        for content in (0, 1, 0):
            world.add_image(content, 5)
        for run_of_round, changed in rounds:
            killed_run(world, *run_of_round)
            for name, *arguments in changed:
                getattr(world, name)(*arguments)
        for number in range(len(world.images)):
            if not world.path(number).exists():
                world.edit(number, number % 2)
        assert world.run(world.output, FakeEngine())
        clean = FakeEngine()
        assert world.run(world.root / "clean.jsonl", clean)
        found, wanted = rows_of(world.output), rows_of(world.root / "clean.jsonl")
        assert found[: len(wanted)] == wanted
        # What is left over is about questions that are gone, each once.
        others = [row["id"] for row in found[len(wanted) :]]
        assert len(set(others)) == len(others)
        assert not set(others) & set(clean.asked)
        # Nothing is asked twice but what failed, and nothing changes.
        before, again = world.output.read_bytes(), FakeEngine()
        world.run(world.output, again)
        assert again.asked == [row["id"] for row in wanted if row["error"]]
        assert rows_of(world.output) == found
        if not again.asked:
            assert world.output.read_bytes() == before


SLOW_BATCH = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.path_here
from divprune.serving import run
from tests.serving.test_going_on import FakeEngine, World
world = World(Path(sys.argv[1]), True)
class Slow(FakeEngine):
    def __call__(self, settings, questions):
        for answer in super().__call__(settings, questions):
            yield answer
            time.sleep(0.01)
print("ready", flush=True)
world.run(world.output, Slow())
""".replace("sys.path_here", repr([str(Path(__file__).parents[2])]))


@pytest.mark.slow
@pytest.mark.parametrize("num_answers", [1, 7, 20])
def test_a_process_that_was_killed_is_gone_on_from(tmp_path: Path, num_answers: int) -> None:
    world = World(tmp_path, True)
    (tmp_path / "images").mkdir()
    for number in range(30):
        world.add_image(number % 2, number)
    process = subprocess.Popen([sys.executable, "-c", SLOW_BATCH, str(tmp_path)], stdout=subprocess.PIPE)
    while not world.output.exists() or world.output.read_bytes().count(b"\n") < num_answers:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    before = world.output.read_bytes().count(b"\n")
    assert before < 30
    world.edit(0, 1)
    engine = FakeEngine()
    assert world.run(world.output, engine)
    assert 30 - before <= len(engine.asked) <= 31 - before + 1
    assert world.run(tmp_path / "clean.jsonl", FakeEngine())
    assert world.output.read_bytes() == (tmp_path / "clean.jsonl").read_bytes()
