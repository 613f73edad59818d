"""Check where something is written: never over what is read, nor over what another program wrote."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from divprune.errors import ArgumentError

_HEAD = 4096  # bytes; what tells our files from others stands within them


def check_output_file(argument: str, path: Path, example: str) -> None:
    """Refuse a path that no file can be written to.

    Args:
        argument: which argument named it.
        path: as given.
        example: a good name of such a file.

    Raises:
        ArgumentError: it is a directory, or it lies in one that is not there or not to be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise ArgumentError(f"`{argument}` {path} is a directory; name a file in it, such as {path / example}")
    if not folder.is_dir():
        raise ArgumentError(f"`{argument}` {path}: there is no directory {path.parent}; create it first")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"`{argument}` {path}: no permission to write into {path.parent}")


def check_not_read(argument: str, path: Path, inputs: Iterable[Path], example: str) -> None:
    """Refuse to write to a file that is read, by whatever name: another spelling, a symlink, a hard link.

    Args:
        argument: which argument named the output.
        path: as given.
        inputs: every file that is read; those that are missing are told apart by their paths.
        example: a good name of such an output.

    Raises:
        ArgumentError: the output is one of the inputs.
    """
    for source in inputs:
        if is_same_file(path, source):
            same = "" if path == source else f", the same file as {source},"
            raise ArgumentError(
                f"`{argument}` {path}{same} is what the command reads; name another file, such as {example}"
            )


def is_same_file(first: Path, second: Path) -> bool:
    """Tell whether two paths name one file, be it there or not."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def check_replaceable(argument: str, path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to replace a file that is there, unless it is of the kind that is written, or empty.

    Args:
        argument: which argument named the output, or its folder.
        path: of the file.
        is_ours: whether a file is what this command writes.
        what: that, in words.

    Raises:
        ArgumentError: it is something else.
    """
    if not os.path.lexists(path) or (path.is_symlink() and not path.exists()):
        return
    if not path.is_file() or (path.stat().st_size and not is_ours(path)):
        raise ArgumentError(
            f"`{argument}` {path} is there already and is no {what}; name another place, or move it away"
        )


def make_folder(argument: str, folder: Path) -> None:
    """Make a folder for records, unless it is there.

    Raises:
        ArgumentError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"`{argument}` {folder}: no such folder can be made ({error.strerror})") from None


def is_page(path: Path, words: str) -> bool:
    """Tell whether a Markdown page is a generated one: its beginning holds certain words."""
    return words.encode() in beginning(path)


def beginning(path: Path) -> bytes:
    """Return the first bytes of a file, within which ours can be told from others."""
    with path.open("rb") as file:
        return file.read(_HEAD)
