"""The helpers that start servers for tests and benchmarks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.servers import ROOT, wait_until_gone

STARTS_ONE_AND_WAITS = """
import os, sys
from pathlib import Path
from tests.serving.servers import launched
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
with launched(sleeper, 0, Path(sys.argv[1]), os.environ) as server:
    print(server.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_no_server_outlives_whoever_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTS_ONE_AND_WAITS, str(tmp_path / "log.txt")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        number = int(starter.stdout.readline())
        starter.kill()
    wait_until_gone({number: "the server"})
