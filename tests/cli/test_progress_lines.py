"""Progress without a terminal."""

from threading import Event

import pytest

from divprune.cli import progress_lines
from divprune.cli.console import Console
from divprune.cli.progress_lines import SECONDS_BETWEEN, ProgressLines


def test_steps_are_told_now_and_then_with_what_is_left() -> None:
    lines: list[str] = []
    now = 0.0
    with ProgressLines(lines.append, clock=lambda: now).counting("answering", 10) as advance:
        for _ in range(10):
            now += 0.4 * SECONDS_BETWEEN
            advance(1)
    assert lines == [
        "answering: 3 of 10 (0:18, about 0:42 left)",
        "answering: 6 of 10 (0:36, about 0:24 left)",
        "answering: 9 of 10 (0:54, about 0:06 left)",
    ]


def test_what_is_soon_done_is_not_told() -> None:
    lines: list[str] = []
    with ProgressLines(lines.append).counting("answering", 2) as advance:
        advance(2)
    with ProgressLines(lines.append).working("starting"):
        pass
    assert lines == []


def test_work_of_unknown_length_is_told_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0.001)
    told, lines = Event(), []

    def write(line: str) -> None:
        lines.append(line)
        told.set()

    with ProgressLines(write, clock=lambda: 75.0).working("drawing"):
        assert told.wait(60)
    assert set(lines) == {"drawing: 0:00"}


def test_the_console_writes_lines_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0.0)
    with Console(as_json=False).counting("answering \x1b[2J", 4) as advance:
        advance(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "answering \\x1b[2J: 4 of 4 (0:00, about 0:00 left)\n"
