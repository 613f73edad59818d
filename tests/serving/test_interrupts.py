"""Ctrl-C in a terminal, which every process of a command gets: one line, and the exit code that shells give it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

# `divprune batch` over an engine that has a process of its own, as vLLM's has, and never answers.
BATCH = """
import time
from multiprocessing import get_context
from divprune.serving import run
from divprune.serving.interrupts import interrupts_kept_here

def answers(settings, questions):
    with interrupts_kept_here():
        engine = get_context(HOW).Process(target=time.sleep, args=(100,), daemon=True)
        engine.start()
    print("ready", flush=True)
    time.sleep(100)
    yield

run.answers_here, run.require_vllm = answers, lambda: None
from divprune.cli.main import app
app()
"""
ANY = """
import time
from divprune.cli.console import command
from divprune.cli.main import app

@app.command()
def wait():
    with command(False, False):
        print("ready", flush=True)
        time.sleep(100)

app()
"""


def interrupted(code: str, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a command whose process group gets Ctrl-C as soon as it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    # Nothing of it is left, or soon.
    while is_group_there(process.pid):
        time.sleep(0.1)
    return process.returncode, errors


def is_group_there(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_a_batch_is_interrupted_in_one_line(tmp_path: Path, how: str) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    output = tmp_path / "answers.jsonl"
    asked = ("--input", str(tmp_path / "images"), "--prompt", "A?", "--output", str(output))
    code, errors = interrupted(BATCH.replace("HOW", repr(how)), "batch", "a-model", *asked)
    assert code == 130
    assert errors == f"interrupted; the same command goes on from what is in {output}\n"


def test_any_command_is_interrupted_in_one_line() -> None:
    assert interrupted(ANY, "wait") == (130, "interrupted\n")
