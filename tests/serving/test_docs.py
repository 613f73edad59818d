"""docs/serving.md, run as written; the model, address and folders of the tests stand for those that it names.

Engines are started without compiling, which takes a minute on few cores.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from divprune.vllm_plugin import pruned_overrides
from tests.serving.cases import picture
from tests.serving.servers import ROOT, Server, free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

GUIDE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
MODELS = ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf")
PICTURES = ("image.jpg", "images/image.jpg", "images/cat.jpg", "images/a.jpg", "images/b.jpg")
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0|1",
}
NUM_WORDS = 7
"""Of a prompt besides the picture: five unknown ones, and two of the template."""


def blocks(language: str, heading: str) -> list[str]:
    """The code of a section."""
    section = re.split(rf"^## {heading}\n", GUIDE, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def commands(name: str) -> list[str]:
    """The command lines that start so, each in one line."""
    return re.findall(rf"^{name} .*$", GUIDE.replace("\\\n", ""), flags=re.MULTILINE)


Run = Callable[..., str]
Start = Callable[[str], AbstractContextManager[Server]]


@pytest.fixture
def ours(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], str]:
    """Replaces what the guide names by what is there."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate(PICTURES):
        picture(number).save(tmp_path / name)
    places = dict.fromkeys(MODELS, str(checkpoint("llava")))
    places |= {"/srv/images": str(tmp_path / "images"), "/shared/": "", "--workers 16": "--workers 2"}

    def replaced(code: str) -> str:
        for named, there in places.items():
            code = code.replace(named, there)
        return code

    return replaced


@pytest.fixture
def run(ours: Callable[[str], str], tmp_path: Path) -> Run:
    """`run(command, code, address)` in a folder with pictures; what it says."""

    def finished(command: list[str], code: str, address: str = ADDRESS) -> str:
        done = subprocess.run(
            [*command, ours(code).replace(ADDRESS, address)],
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return finished


@pytest.fixture
def start(ours: Callable[[str], str], tmp_path: Path) -> Start:
    """Starts one of the guide's servers."""

    @contextmanager
    def started(command: str) -> Iterator[Server]:
        port = free_port()
        whole = f"exec {ours(with_flags(command, f'--enforce-eager --port {port}'))}"
        with running(["bash", "-c", whole], port, tmp_path / "log.txt", os.environ | ENVIRONMENT) as server:
            yield server
            assert server.stop() == 0

    return started


def with_flags(command: str, flags: str) -> str:
    return f"{command} {flags}" if " -- " in command else f"{command} -- {flags}"


def serve_command(part: str) -> str:
    (command,) = [command for command in commands("divprune serve") if part in command]
    return command


def asking() -> str:
    (code,) = blocks("python", "A server")
    return code


def test_every_serve_command_is_run() -> None:
    assert len(commands("divprune serve")) == 5


def test_a_server(start: Start, run: Run) -> None:
    (curl,) = [block for block in blocks("bash", "A server") if block.startswith("curl")]
    with start(serve_command("--keep-ratio 0.098 ")) as server:
        said = run(["bash", "-euc"], curl, server.address)
        answer, usage, streamed = run([sys.executable, "-c"], asking(), server.address).splitlines()
    # 9.8 % of 36.
    assert f'"prompt_tokens":{NUM_WORDS + 4}' in said
    assert usage == f"{NUM_WORDS + 4} tokens in the prompt"
    assert answer == streamed
    assert answer


def test_a_picture_on_the_servers_machine(start: Start, run: Run) -> None:
    (address,) = re.findall(r'"url": "(file://.*?)"', GUIDE)
    remote = re.sub(r"^image = .*$", f"image = {address!r}", asking(), flags=re.MULTILINE)
    local = asking().replace("image.jpg", "images/image.jpg")
    assert remote != asking() != local
    with start(serve_command("--allowed-local-media-path")) as server:
        assert run([sys.executable, "-c"], remote, server.address) == run([sys.executable, "-c"], local, server.address)


def test_a_smaller_share(start: Start, run: Run) -> None:
    (smaller,) = [block for block in blocks("python", "A smaller share for some requests") if "client" in block]
    code = f"{asking()}{smaller}\nprint()\nprint(response.usage.prompt_tokens)"
    with start(serve_command("--allow-request-ratio")) as server:
        said = run([sys.executable, "-c"], code, server.address).splitlines()
    assert said[1] == f"{NUM_WORDS + 9} tokens in the prompt"
    assert said[-1] == str(NUM_WORDS + 2)


def test_one_pruned_one_not(start: Start, run: Run, tmp_path: Path) -> None:
    (code,) = blocks("python", "What it gains, while it runs")
    questions = [{"image": name, "prompt": f"word{number} word4"} for number, name in enumerate(PICTURES)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in questions), encoding="utf-8")
    with start(serve_command("--keep-ratio 0.098 ")) as pruned, start(serve_command("--keep-ratio 1 ")) as whole:
        code = code.replace(ADDRESS, pruned.address).replace("http://127.0.0.1:8001", whole.address)
        same, first, prompt = run([sys.executable, "-c"], code).splitlines()
    assert re.fullmatch(rf"\d of {len(PICTURES)} answers are the same", same)
    assert first.startswith("first token: ")
    # 4 of 36, two words and two of the template.
    assert prompt == f"prompt: {8 / 40:.2f} of its tokens"


def test_two_cards(start: Start, run: Run) -> None:
    with start(serve_command("--tensor-parallel-size 2")) as server:
        said = run([sys.executable, "-c"], asking(), server.address).splitlines()
        assert sum("VLLM::Worker" in command for command in server.processes().values()) == 2
    assert said[1] == f"{NUM_WORDS + 4} tokens in the prompt"


def test_in_python(run: Run) -> None:
    (code,) = blocks("python", "In Python")
    (smaller,) = [block for block in blocks("python", "A smaller share for some requests") if "llm" in block]
    allowing = code.replace("0.098)", "0.098, allow_request_ratio=True)").replace("LLM(model", "LLM(model, seed=0")
    assert allowing.count("allow_request_ratio") == 1
    code = allowing.replace("seed=0", "enforce_eager=True")
    said = run([sys.executable, "-c"], f"{code}print(len({smaller.strip()}[0].prompt_token_ids))").splitlines()
    # "USER:" to "ASSISTANT:" are seven words.
    assert said[-2:] == ["11 tokens in the prompt", "9"]


def test_vllms_own_flag_says_the_same(checkpoint: Callable[[str], Path]) -> None:
    (block,) = blocks("bash", "With vLLM's own flags")
    (flag,) = re.findall(r"--hf-overrides \\\n\s*'(.*)'", block)
    assert json.loads(flag) == pruned_overrides(checkpoint("llava"), keep_ratio=0.098) | {
        "divprune": {"keep_ratio": 0.098}
    }


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_batches(run: Run, tmp_path: Path) -> None:
    (questions,) = blocks("json", "Batches: a folder or a file of questions")
    (tmp_path / "questions.jsonl").write_text(questions, encoding="utf-8")
    folder, lines, *_ = commands("divprune batch")
    run(["bash", "-euc"], "\n".join(with_flags(command, "--enforce-eager") for command in (folder, lines)))
    names = [answer["id"] for answer in answers(tmp_path / "answers.jsonl")]
    assert names == ["a.jpg", "b.jpg", "cat.jpg", "image.jpg"]
    assert {answer["prompt_tokens"] for answer in answers(tmp_path / "answers.jsonl")} == {NUM_WORDS + 4}
    # 9 of 36 for each picture; four words and two of the template.
    assert [(answer["id"], answer["prompt_tokens"]) for answer in answers(tmp_path / "quarter.jsonl")] == [
        ("cat-1", 9 + 6),
        ("2", 9 + 9 + 4),
    ]
