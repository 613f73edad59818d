"""Other load beside a measurement: read from /proc, left out where it is too much, and said where it could not be."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from divprune.efficiency import foreign_load
from divprune.efficiency.foreign_load import BUSY_CORES, ForeignLoad, busy_note, quiet_rounds


class Machine:
    """A clock and what /proc says, moved on by hand, in seconds."""

    def __init__(self) -> None:
        self.now = self.all_cores = self.own = 0.0

    def work(self, seconds: float, *, own: float = 0.0, others: float = 0.0) -> None:
        """Let time pass, in which we and others keep so many cores busy."""
        self.now += seconds
        self.own += own * seconds
        self.all_cores += (own + others) * seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(foreign_load.time, "perf_counter", lambda: found.now)
    monkeypatch.setattr(foreign_load, "_busy_seconds", lambda: found.all_cores)
    monkeypatch.setattr(foreign_load, "_own_seconds", lambda: found.own)
    return found


def rounds_beside(machine: Machine, others: list[float], seconds: float = 10.0) -> Callable[[], int]:
    """A measurement that gives its number, beside so much other load each time."""
    numbers: Iterator[tuple[int, float]] = enumerate(others)

    def measure() -> int:
        number, cores = next(numbers)
        machine.work(seconds, own=1.0, others=cores)
        return number

    return measure


def test_what_is_not_ours_is_foreign(machine: Machine) -> None:
    load = ForeignLoad()
    machine.work(4.0, own=1.5, others=0.25)
    assert load.cores() == 0.25
    assert load.seconds() == 4.0


def test_quiet_rounds_are_kept_as_they_come(machine: Machine) -> None:
    rounds = quiet_rounds(rounds_beside(machine, [0.0, 0.125, 0.0]), 3)
    assert rounds.results == (0, 1, 2)
    assert rounds.as_config() == {"foreign_cores": [0.0, 0.125, 0.0], "rounds_left_out": 0, "busy_rounds": 0}
    assert busy_note(rounds.as_config()) == ""


def test_busy_rounds_are_measured_again(machine: Machine) -> None:
    rounds = quiet_rounds(rounds_beside(machine, [0.0, 1.0, 0.5, 0.0, 0.0]), 3)
    assert rounds.results == (0, 3, 4)
    assert rounds.as_config() == {"foreign_cores": [0.0, 0.0, 0.0], "rounds_left_out": 2, "busy_rounds": 0}


def test_on_a_busy_machine_the_least_busy_rounds_fill_up_and_the_record_says_so(machine: Machine) -> None:
    rounds = quiet_rounds(rounds_beside(machine, [1.0, 0.5, 0.0, 2.0, 0.25, 1.5]), 3)
    assert rounds.results == (2, 4, 1)
    assert rounds.as_config() == {"foreign_cores": [0.0, 0.25, 0.5], "rounds_left_out": 3, "busy_rounds": 2}
    assert "busy in 2 of 3 rounds: others used up to 0.50 cores" in busy_note(rounds.as_config())


def test_a_load_at_the_bound_is_quiet_and_no_bound_takes_everything(machine: Machine) -> None:
    assert quiet_rounds(rounds_beside(machine, [BUSY_CORES]), 1).num_busy == 0
    assert quiet_rounds(rounds_beside(machine, [3.0]), 1, busy_cores=float("inf")).as_config()["busy_rounds"] == 0


def test_what_the_systems_clock_cannot_tell_is_not_held_against_a_short_round(machine: Machine) -> None:
    ticks_per_second = os.sysconf("SC_CLK_TCK")
    one_tick = 1 / ticks_per_second
    # One tick of others in a round of four is a quarter of a core, or chance.
    rounds = quiet_rounds(rounds_beside(machine, [0.25], seconds=4 * one_tick), 1)
    assert (rounds.num_busy, rounds.foreign_cores) == (0, (pytest.approx(0.25),))
    assert quiet_rounds(rounds_beside(machine, [0.25] * 2, seconds=4000 * one_tick), 1).num_busy == 1


def test_no_round_starts_after_the_time_limit(machine: Machine) -> None:
    rounds = quiet_rounds(rounds_beside(machine, [1.0, 0.0, 0.0, 0.0]), 4, max_seconds=15.0)
    assert rounds.results == (1, 0)
    assert rounds.num_busy == 1
    assert quiet_rounds(rounds_beside(machine, [1.0]), 4, max_seconds=0.0).results == (0,)


def test_where_the_system_does_not_say_every_round_counts_and_readers_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_load, "_busy_seconds", lambda: None)
    rounds = quiet_rounds(rounds_beside(machine, [5.0, 5.0]), 2)
    assert rounds.results == (0, 1)
    assert rounds.as_config() == {"foreign_cores": [None, None], "rounds_left_out": 0, "busy_rounds": 0}
    assert busy_note(rounds.as_config()) == "Other load was not measured: that takes Linux."


def test_records_from_before_say_nothing_about_other_load() -> None:
    assert busy_note({"repeats": 9}) == ""


def test_without_proc_stat_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(foreign_load, "Path", lambda name: tmp_path / "nowhere")
    assert ForeignLoad().cores() is None


def test_benchmarks_let_waiting_threads_sleep_before_torch_is_loaded() -> None:
    command = "import benchmarks, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for given, expected in ((None, "PASSIVE False"), ("ACTIVE", "ACTIVE False")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
        found = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, check=True, env=environment
        )
        assert found.stdout.strip() == expected
