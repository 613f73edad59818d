"""Everything that is to be known on a GPU, in parts: `python -m benchmarks.gpu --minutes 8`.

A part is a process of its own; each writes its record under results/, and `gpu-parts.json` notes how it ended. A call
goes on where the last one ended, and starts no part that may not end within the minutes. Nothing is downloaded. Parts:
the tests marked gpu, the speed of the selection, the paper's models whole with sdpa and with flash attention, one
compiled, and the parity suite's cells. `--rehearse` does the same at toy sizes on a CPU, to try all of it beforehand.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.gpu_models import ModelPart, model_parts
from divprune.records import Record, provenance

STATE = "gpu-parts.json"
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"
TOY_SIZES, TOY_BATCH = ((40, 16, 8), (64, 16, 12)), (3, 40, 16, 8)
REHEARSED_TESTS = "tests/selection/test_fused_choice.py"
REHEARSED_CELLS = "llava- and forward"
NUM_SHARDS = 8
"""Processes that share the cells of the parity suite, one after the other."""
ENDING_SECONDS = 10
"""Kept back from what a part may take, to stop it and write down how it ended."""


@dataclass(frozen=True)
class Part:
    """What one process does.

    Attributes:
        name: what it is called.
        minutes: what it may take at most, by estimate, on the slowest GPU that this is meant for.
        run: does it, writes a record into a folder.
        refusal: why it cannot run here, if so.
    """

    name: str
    minutes: float
    run: Callable[[Path], object]
    refusal: str | None = None


def parts(rehearses: bool) -> list[Part]:
    """All parts, in the order of what one wants to know first."""
    models = [Part(each.name, _minutes(each), each.measure, each.refusal) for each in model_parts(rehearses)]
    return [
        Part("gpu-tests", 4, partial(run_tests, "gpu-tests", gpu_tests(rehearses))),
        Part("selection", 4, partial(measure_selection, rehearses)),
        *models,
        *(
            Part(f"parity-{shard}", 7.5, partial(run_tests, f"parity-{shard}-cuda", parity_cells(shard, rehearses)))
            for shard in range(1, NUM_SHARDS + 1)
        ),
    ]


def _minutes(part: ModelPart) -> float:
    return 7.5 if part.is_compiled else 6


def gpu_tests(rehearses: bool) -> list[str]:
    return [REHEARSED_TESTS] if rehearses else ["-m", "gpu", "tests/selection", "--ignore=tests/serving"]


def parity_cells(shard: int, rehearses: bool) -> list[str]:
    where = ["--device", "cpu" if rehearses else "cuda", "--shard", f"{shard}/{NUM_SHARDS}"]
    return ["tests/parity/test_parity.py", *where, *(["-k", REHEARSED_CELLS] if rehearses else [])]


def run_tests(name: str, arguments: Sequence[str], output: Path) -> None:
    """Run tests and record how many ended how; those that fail are named.

    Raises:
        RuntimeError: one failed.
    """
    report = output / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *arguments]
    subprocess.run(command, check=False)
    counts, failures = outcomes(report)
    report.unlink()
    origin = provenance()
    config = {"arguments": list(arguments), "device": "cuda" if torch.cuda.is_available() else "cpu"}
    Record(name, config, [counts | {"failures": failures}], origin).save(output)
    if failures:
        raise RuntimeError(f"{len(failures)} tests failed, {counts['num_passed']} passed")


def outcomes(report: Path) -> tuple[dict[str, int], list[str]]:
    """Return how many tests of a JUnit report ended how, and which failed."""
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    num_skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"num_passed": len(cases) - len(failed) - num_skipped, "num_skipped": num_skipped}
    return counts | {"num_failed": len(failed)}, [str(case.get("name")) for case in failed]


def measure_selection(rehearses: bool, output: Path) -> None:
    from benchmarks import selection, selection_gpu

    if not rehearses:
        selection.on_gpu(repeats=9).save(output)
        return
    origin = provenance()
    rows = selection_gpu.rows(torch.device("cpu"), TOY_SIZES, TOY_BATCH, 2)
    Record("selection-cuda", selection.config_of("cpu", 2), rows, origin).save(output)


class Progress:
    """How parts ended, in a file, with what code and machine: other code or another machine begins anew."""

    def __init__(self, folder: Path, of: str) -> None:
        self._path, self._of = folder / STATE, of
        found = json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}
        self.ended: dict[str, dict[str, object]] = found.get("parts", {}) if found.get("of") == of else {}

    def note(self, name: str, outcome: str, **more: object) -> None:
        self.ended[name] = {"outcome": outcome, **more}
        state = {"of": self._of, "parts": self.ended}
        self._path.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def wants(self, name: str) -> bool:
        """Whether a part has not run, or failed; what failed runs once more, behind the others."""
        return self.ended.get(name, {}).get("outcome") not in (DONE, LEFT_OUT)

    def has_failed(self, name: str) -> bool:
        return self.ended.get(name, {}).get("outcome") == FAILED


def identity(rehearses: bool) -> str:
    """The code and the machine that results are of."""
    found = provenance()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{found['git_revision']} {device} torch {torch.__version__}{' rehearsal' if rehearses else ''}"


def command_of(part: Part, rehearses: bool, output: Path) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name, "--output", str(output)]
    return [*command, "--rehearse"] if rehearses else command


def run_part(part: Part, rehearses: bool, output: Path, seconds: float) -> tuple[str, str]:
    """Run one part in a process, and return how it ended and the end of what it printed."""
    log = output / f"{part.name}.log"
    with log.open("w", encoding="utf-8") as file:
        command = command_of(part, rehearses, output)
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            outcome = DONE if process.wait(seconds) == 0 else FAILED
        except subprocess.TimeoutExpired:
            outcome = FAILED
            file.write(f"\nstopped after {seconds:.0f} s\n")
        finally:
            # With what it started, which would go on to use the GPU.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    end = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
    if outcome == DONE:
        log.unlink()
    return outcome, end


def run_all(output: Path, minutes: float, rehearses: bool, wanted: Sequence[str] = ()) -> bool:
    """Run what is left and fits into the minutes; return whether nothing is left and nothing failed."""
    deadline = time.monotonic() + 60 * minutes
    progress = Progress(output, identity(rehearses))
    left = [part for part in parts(rehearses) if part.name in wanted or (not wanted and progress.wants(part.name))]
    for part in sorted(left, key=lambda part: progress.has_failed(part.name)):
        remaining = deadline - time.monotonic() - ENDING_SECONDS
        if part.refusal is not None:
            progress.note(part.name, LEFT_OUT, reason=part.refusal)
        elif remaining < 60 * part.minutes and not (rehearses and remaining > 0):
            print(f"{part.name}: may take {part.minutes:g} minutes, {remaining / 60:.1f} are left; call again")
            continue
        else:
            started = time.monotonic()
            outcome, end = run_part(part, rehearses, output, remaining)
            seconds = round(time.monotonic() - started, 1)
            progress.note(part.name, outcome, seconds=seconds, **({"log": end} if outcome == FAILED else {}))
        print(f"{part.name}: {progress.ended[part.name]}", flush=True)
    names = [part.name for part in parts(rehearses)]
    return all(not progress.wants(name) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no part starts that may take longer than is left")
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU; write to a folder of its own")
    parser.add_argument("--only", nargs="+", default=(), metavar="PART", help="these, whether they have run or not")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = {part.name: part for part in parts(arguments.rehearse)}
    if unknown := {*arguments.only, *([arguments.part] if arguments.part else [])} - set(known):
        parser.error(f"parts are {', '.join(known)}, got {', '.join(sorted(unknown))}")
    if not arguments.rehearse and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; try the code with --rehearse --output FOLDER")
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        known[arguments.part].run(arguments.output)
        return
    sys.exit(not run_all(arguments.output, arguments.minutes, arguments.rehearse, arguments.only))


if __name__ == "__main__":
    main()
