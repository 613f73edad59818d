"""Write files: never over what is read, nor over what another program wrote, and each whole or not at all.

`safe_output` is asked before the work starts, so that none of it is lost; `write_whole` writes at its end.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from divprune.errors import ArgumentError

_HEAD = 4096  # bytes
_LONGEST_SHOWN = 90  # characters of a path in a message
_FORCED = ContextVar("forced", default=False)


@dataclass(frozen=True)
class FileKind:
    """Files that a command writes, and how they are told from others.

    Attributes:
        title: what such a file is, in words.
        example: a good name of one.
        mark: a regular expression that is found in the first 4,096 bytes of each of them, and of no other file: the
            first keys of our JSON, the title of our HTML, the records that our figures name.
    """

    title: str
    example: str
    mark: bytes

    def is_kind_of(self, path: Path) -> bool:
        """Tell whether a file is one of these."""
        with path.open("rb") as file:
            return re.search(self.mark, file.read(_HEAD), re.DOTALL) is not None


@contextlib.contextmanager
def forced(force: bool = True) -> Iterator[None]:
    """Let files of other programs be replaced inside the block, though never what is read."""
    token = _FORCED.set(force)
    try:
        yield
    finally:
        _FORCED.reset(token)


def safe_output(argument: str, path: Path, kind: FileKind, inputs: Iterable[Path] = ()) -> Path:
    """Refuse a path that cannot be written to, or must not be; return it otherwise.

    Links are followed. What is there is replaced if it is empty or one of `kind`, by its mark, or inside `forced()`; a
    device or a FIFO is written to as it is.

    Args:
        argument: which argument named it, or its folder.
        path: as given.
        kind: what will be written.
        inputs: every file that is read, told apart by whatever name: another spelling, a symlink, a hard link.

    Raises:
        ArgumentError: the name is impossible, the folder is missing or not to be written to, or the path is a folder,
            one of `inputs`, or a file of another program.
    """
    found, shown = _status(argument, path), short(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise ArgumentError(f"`{argument}` {shown} is a directory; name another place, such as {kind.example}")
    for source in inputs:
        if is_same_file(path, source):
            same = "" if path == source else f", the same file as {short(source)},"
            raise ArgumentError(
                f"`{argument}` {shown}{same} is what the command reads; name another file, such as {kind.example}"
            )
    if found is not None and not stat.S_ISREG(found.st_mode):
        return path
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ArgumentError(f"`{argument}` {shown}: there is no directory {short(path.parent)}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ArgumentError(
            f"`{argument}` {shown}: no permission to write into {short(path.parent)}; name another place"
        )
    if found is not None and not os.access(path, os.R_OK | os.W_OK):
        raise ArgumentError(f"`{argument}` {shown}: no permission to replace it; name another place")
    if found is not None and found.st_size and not _FORCED.get() and not kind.is_kind_of(path):
        raise ArgumentError(
            f"`{argument}` {shown} is there already and is no {kind.title}; name another place, move it away, or "
            "replace it by `force`"
        )
    return path


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, through a temporary file beside it: after a crash the old one is there, whole.

    Links are followed; mode and owner of what is replaced stay, a new file gets those of the umask. Devices and FIFOs
    are written to.
    """
    # Half a surrogate pair, as in names of files that are not UTF-8, is no reason to lose a report.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    found = os.stat(path) if path.exists() else None
    if found is not None and not stat.S_ISREG(found.st_mode):
        with open(os.open(path, os.O_WRONLY), "wb") as file:
            file.write(data)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".divprune-{secrets.token_hex(8)}.part")
    mode = 0o666 if found is None else 0o600
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            if found is not None:
                with contextlib.suppress(PermissionError, AttributeError):
                    os.chown(temporary, found.st_uid, found.st_gid)
                os.chmod(temporary, stat.S_IMODE(found.st_mode))
            file.write(data)
            file.flush()
            # Otherwise a power cut could leave the new name without the content.
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_folder(folder: Path, files: Mapping[str, str | bytes], require_replaceable: Callable[[Path], None]) -> None:
    """Write a folder whole or not at all: all files beside it first, then it takes the place of what is there.

    Args:
        folder: a new one, or one that may be replaced with all that is in it.
        files: content by path inside the folder.
        require_replaceable: is asked again at the end; raises if something else lies there by then.
    """
    target = folder.absolute()
    fresh, old = (target.with_name(f".divprune-{secrets.token_hex(8)}.{name}") for name in ("part", "old"))
    try:
        for name, content in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(fresh / name, content)
        if target.exists():
            require_replaceable(target)
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def locked(argument: str, path: Path) -> Iterator[None]:
    """Keep a file from being written by two processes; the lock goes with the process, whatever ends it.

    Raises:
        ArgumentError: another process is writing it.
    """
    import fcntl

    target = Path(os.path.realpath(path))
    lock = target.with_name(f".divprune-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.lock")
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            is_ours = False
        except OSError:
            # A file system without locks.
            is_ours = True
        if not is_ours:
            raise ArgumentError(
                f"`{argument}` {short(path)} is being written by another process; wait for it, or name another file"
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def is_same_file(first: Path, second: Path) -> bool:
    """Tell whether two paths name one file, be it there or not."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return os.path.realpath(first) == os.path.realpath(second)


def files_of(folder: str | Path | None) -> list[Path]:
    """Return the files of a folder that is read, such as a checkpoint's; none of what is no folder."""
    return [] if folder is None or not os.path.isdir(folder) else list(Path(folder).iterdir())


def make_folder(argument: str, folder: Path) -> None:
    """Make a folder for records, unless it is there.

    Raises:
        ArgumentError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"`{argument}` {short(folder)}: no such folder can be made ({_reason(error)})") from None


def short(path: Path) -> str:
    """Return a path for a message: of a long one its two ends."""
    text = str(path)
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]}...{text[-half:]}"


def _status(argument: str, path: Path) -> os.stat_result | None:
    """Return what a path leads to, None if nothing is there."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ArgumentError(f"`{argument}` {short(path)}: no file can be written there ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
