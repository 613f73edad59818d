"""Checks of where a command writes: never over what it reads, nor over what another program wrote."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from divprune.cli.failures import CommandError
from divprune.errors import CalibrationError
from divprune.records import read_calibration

_HEAD = 4096  # bytes; what tells our files from others stands within them
_REPORT = re.compile(rb"<!doctype html>.*<title>divprune: [^<]* visual tokens</title>", re.DOTALL)


def check_output_file(option: str, path: Path, example: str) -> None:
    """Refuse a path that no file can be written to.

    Args:
        option: which option named it.
        path: as typed.
        example: a good name of such a file.

    Raises:
        CommandError: it is a directory, or it lies in one that is not there or not to be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise CommandError(f"{option} {path} is a directory; name a file in it, such as {path / example}")
    if not folder.is_dir():
        raise CommandError(f"{option} {path}: there is no directory {path.parent}; create it first")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{option} {path}: no permission to write into {path.parent}")


def check_not_read(option: str, path: Path, inputs: Iterable[Path], example: str) -> None:
    """Refuse to write to a file that the command reads, by whatever name: another spelling, a symlink, a hard link.

    Args:
        option: which option named the output.
        path: as typed.
        inputs: every file that is read; those that are missing are told apart by their paths.
        example: a good name of such an output.

    Raises:
        CommandError: the output is one of the inputs.
    """
    for source in inputs:
        if is_same_file(path, source):
            same = "" if path == source else f", the same file as {source},"
            raise CommandError(f"{option} {path}{same} is what the command reads; name another file, such as {example}")


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths name one file, be it there or not."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def check_replaceable(option: str, path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to replace a file that is there, unless it is of the kind that is written, or empty.

    Args:
        option: which option named the output, or its folder.
        path: of the file.
        is_ours: whether a file is what this command writes.
        what: that, in words.

    Raises:
        CommandError: it is something else.
    """
    if not os.path.lexists(path) or (path.is_symlink() and not path.exists()):
        return
    if not path.is_file() or (path.stat().st_size and not is_ours(path)):
        raise CommandError(f"{option} {path} is there already and is no {what}; name another place, or move it away")


def check_report(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a place for an HTML report that would cost a file, or that is not called so.

    Raises:
        CommandError: says what is wrong with it.
    """
    check_output_file("--report", path, "report.html")
    check_not_read("--report", path, inputs, "report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"--report {path} must end in .html, such as report.html: it is a page for a browser")
    check_replaceable("--report", path, is_report, "report of `divprune run`")


def is_report(path: Path) -> bool:
    """Whether a file is an HTML report, of this version or an earlier one."""
    return _REPORT.match(_head(path).lstrip()) is not None


def is_calibration(path: Path, method: str) -> bool:
    """Whether a file is a calibration of a method, such as "VTW"."""
    try:
        read_calibration(path, method)
    except CalibrationError:
        return False
    return True


def is_figure(path: Path) -> bool:
    """Whether a PNG or SVG names the record that it was drawn from; see `figures.saving`."""
    if path.suffix == ".png":
        return re.search(rb"tEXtSource\0[^\0]*\.json", _head(path)) is not None
    return b"<dc:title>divprune</dc:title>" in _head(path)


def is_page(path: Path, words: str) -> bool:
    """Whether a Markdown page is a generated one: its beginning holds certain words."""
    return words.encode() in _head(path)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
