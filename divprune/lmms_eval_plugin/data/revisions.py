"""Which version of a data set a task was evaluated on."""

import re
from pathlib import Path
from typing import Any

from divprune.records import checksum

_COMMIT = re.compile(r"(?:@|/)([0-9a-f]{40})(?:/|$)")


def data_revision(task: Any) -> dict[str, Any]:
    """Name the data of one of lmms-eval's task objects.

    Returns:
        "path", "name", "split" and "num_samples"; "revision", the commit of a data set of the hub, or "fingerprint",
        of the content of local files, or neither where nothing is known.
    """
    split = task.config.test_split or task.config.validation_split
    table = task.dataset[split]
    found: dict[str, Any] = {"path": task.config.dataset_path, "name": task.config.dataset_name, "split": split}
    files = _local_files(task)
    if files:
        found |= {"path": _common_folder(files), "fingerprint": checksum(files)}
    elif commit := _commit(table):
        found["revision"] = commit
    return found | {"num_samples": len(table)}


def _local_files(task: Any) -> list[Path]:
    given = (task.config.dataset_kwargs or {}).get("data_files") or {}
    named = [each for files in given.values() for each in ([files] if isinstance(files, str) else files)]
    if (task.config.dataset_kwargs or {}).get("load_from_disk"):
        named = [str(path) for path in sorted(Path(task.config.dataset_path).rglob("*.arrow"))]
    return [path for path in map(Path, named) if path.is_file()]


def _common_folder(files: list[Path]) -> str:
    shared = set(files[0].parents).intersection(*(path.parents for path in files))
    return str(max(shared, key=lambda path: len(path.parts)))


def _commit(table: Any) -> str | None:
    """Return the commit that `datasets` wrote into the sources or the cache of a table, if one and the same."""
    info = getattr(table, "info", None)
    sources: list[str] = list(getattr(info, "download_checksums", None) or {})
    sources += [str(each.get("filename", "")) for each in getattr(table, "cache_files", None) or []]
    commits = [match[1] for source in sources if (match := _COMMIT.search(source))]
    return commits[0] if commits else None
