"""Checksums that tell versions of data and weights apart, in seconds also for many gigabytes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_PIECE = 65536  # bytes
_NUM_PIECES = 256


def checksum(files: Iterable[Path]) -> str:
    """A checksum of the files' names, sizes and content; of large files, of pieces spread over the content."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _starts(size: int) -> Iterable[int]:
    if size <= _PIECE * _NUM_PIECES:
        return range(0, size, _PIECE)
    return (place * (size - _PIECE) // (_NUM_PIECES - 1) for place in range(_NUM_PIECES))
