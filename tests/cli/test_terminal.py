"""Nothing that a command is given, or reads, controls the terminal: one line on standard error, and no escapes."""

from pathlib import Path

import pytest

from divprune.errors import ArgumentError, printable
from tests.support.commands import Command

NAME = "\x1b[2J\x1b]0;owned\x07\x9b2J\u202ex"
CALLS = (
    ("run", "--image", NAME), ("run", "--video", NAME), ("run", "--model", NAME), ("run", "--model", f"./{NAME}"),
    ("run", "--report", NAME), ("run", "--method", NAME), ("run", "--method", f"fitprune:recipe={NAME}"),
    ("run", "--method", f"random:seed={NAME}"), ("run", "--device", NAME), ("run", "--dtype", NAME), ("run", NAME),
    ("bench", "--architecture", NAME), ("bench", "--output", NAME), ("flops", "--model", NAME),
    ("figures", "--results", NAME), ("figures", "--only", NAME), ("eval", "--suite", NAME), ("eval", "--methods", NAME),
    ("eval", "--keep-ratios", NAME), ("reproduce", NAME), ("calibrate", "vtw", "--output", f"{NAME}/{NAME}"),
    ("calibrate", "vtw", "--image", NAME, "--output", "x.json"), ("batch", "m", "--input", NAME, "--output", "x"),
    ("batch", NAME, "--input", ".", "--output", f"{NAME}/x"), ("serve", NAME), ("methods", NAME), (NAME,),
)  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call[:2]).replace(NAME, "NAME"))
@pytest.mark.parametrize("name", [NAME, "\x1b[2J" + "n" * 5000])
def test_escapes_in_arguments_reach_no_terminal(divprune: Command, call: tuple[str, ...], name: str) -> None:
    outcome = divprune(*(word.replace(NAME, name) for word in call))
    assert outcome.exit_code == 2
    shown = outcome.stdout + outcome.stderr
    assert printable(shown) == shown
    assert "Traceback" not in shown


def test_escapes_in_a_folder_that_is_listed_reach_no_terminal(divprune: Command, tmp_path: Path) -> None:
    folder = tmp_path / "\x1b[2Jimages"
    folder.mkdir()
    (folder / "\x07.png").write_text("no image")
    outcome = divprune("calibrate", "vtw", "--image", folder, "--output", tmp_path / "x.json")
    assert outcome.exit_code == 2
    assert "\\x1b[2Jimages/\\x07.png" in outcome.error
    assert printable(outcome.error) == outcome.error


@pytest.mark.parametrize("letter", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066", "\ud800"])
def test_control_characters_are_written_out_and_letters_stay(letter: str) -> None:
    shown = printable(f"a{letter}b")
    assert shown == (f"a{letter}b" if letter in "\n\t" else f"a{letter.encode('unicode_escape').decode()}b")
    assert str(ArgumentError(f"a{letter}b")) == shown
    for kept in ("é", "猫", "\u3000", "👩\u200d🚀", "\u0646\u200c\u0627"):
        assert printable(kept) == kept
