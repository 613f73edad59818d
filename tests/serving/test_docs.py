"""docs/serving.md, run as written; the model, address and folders of the tests stand for those that it names."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.cases import picture
from tests.serving.servers import ROOT, Server

GUIDE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
MODEL, ADDRESS, FOLDER = "llava-hf/llava-1.5-7b-hf", "http://127.0.0.1:8000", "/srv/pictures"


def blocks(language: str, heading: str) -> list[str]:
    """The code of a section."""
    section = re.split(rf"^## {heading}\n", GUIDE, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def run(
    server: Server, checkpoint: Callable[[str], Path], media_folder: Path, tmp_path: Path
) -> Callable[[list[str], str], str]:
    """`run(command, code)` in a folder with a picture."""
    for folder in (tmp_path, media_folder):
        picture(0).save(folder / "picture.jpg")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    places = {MODEL: str(checkpoint("llava")), ADDRESS: server.address, FOLDER: str(media_folder)}

    def finished(command: list[str], code: str) -> str:
        for named, ours in places.items():
            code = code.replace(named, ours)
        done = subprocess.run(
            [*command, code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return finished


def test_curl(run: Callable[[list[str], str], str]) -> None:
    (code,) = [block for block in blocks("bash", "A server") if block.startswith("curl")]
    said = run(["bash", "-euc"], code)
    # 9 of 36 visual tokens, five unknown words, and two of the template.
    assert '"prompt_tokens":16' in said


def test_the_client(run: Callable[[list[str], str], str]) -> None:
    (code,) = blocks("python", "A server")
    answer, usage, streamed = run([sys.executable, "-c"], code).splitlines()
    assert usage == "16 tokens in the prompt"
    assert answer == streamed
    assert answer


def test_a_picture_on_the_servers_machine(run: Callable[[list[str], str], str]) -> None:
    (code,) = blocks("python", "A server")
    (address,) = re.findall(r'"url": "(file://.*?)"', GUIDE)
    remote = re.sub(r"^picture = .*$", f"picture = {address!r}", code, flags=re.MULTILINE)
    assert remote != code
    assert run([sys.executable, "-c"], remote) == run([sys.executable, "-c"], code)


def test_a_smaller_share(run: Callable[[list[str], str], str]) -> None:
    (code,) = blocks("python", "A server")
    (asking,) = [block for block in blocks("python", "A smaller share for some requests") if "client" in block]
    # 2 of 36, and seven words.
    shorter = run([sys.executable, "-c"], f"{code}{asking}\nprint()\nprint(response.usage.prompt_tokens)")
    assert shorter.splitlines()[-1] == "9"


@pytest.mark.parametrize("command", re.findall(r"^divprune serve .*$", GUIDE, flags=re.MULTILINE))
def test_commands_are_accepted(command: str, run: Callable[[list[str], str], str]) -> None:
    """What they would start; test_server starts one."""
    # One name stands for all models here.
    command = command.replace("llava-1.5-13b-hf", "llava-1.5-7b-hf").replace(" serve ", " serve --dry-run ")
    assert "model: DivPruneLlavaForConditionalGeneration" in run(["bash", "-euc"], command)
