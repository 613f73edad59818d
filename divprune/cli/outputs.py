"""Checks of where a command writes: never over what it reads, nor over what another program wrote."""

import os
from collections.abc import Iterable
from pathlib import Path

from divprune.cli.failures import CommandError


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
            same = "" if path == source else f", the same file as {source}"
            raise CommandError(
                f"{option} {path}{same}, is what the command reads; name another file, such as {example}"
            )


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths name one file, be it there or not."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
