"""Find a checkpoint by what the user called it: a directory on this machine, or a name of the hub."""

import os
from pathlib import Path

from divprune.errors import CheckpointError


def checkpoint_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the directory of a checkpoint's name; None for a name of the hub, which may be there or not.

    Args:
        name: what the user called it.
        revision: branch, tag or commit, which only checkpoints of the hub have.

    Raises:
        CheckpointError: it is neither, or a directory without a config.json, or with a revision.
    """
    path = Path(name).expanduser()
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{name} is no checkpoint: it has no config.json")
        if revision is not None:
            raise CheckpointError(f"{name} is a directory, which has no revision {revision!r}; leave the revision out")
        return path
    if os.path.exists(path):
        raise CheckpointError(f"{name} is a file; `model` takes the directory of a checkpoint, or a hub name")
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1:
        hint = "" if "/" in name or "\\" in name else "; names of the hub have their owner in front, as in owner/model"
        raise CheckpointError(f"no such checkpoint directory: {name}{hint}")
    return None


def hub_config(name: str, revision: str | None = None) -> Path:
    """Download a hub checkpoint's config.json, or find it in the local cache.

    Args:
        name: of the hub.
        revision: branch, tag or commit; None for the newest.

    Raises:
        CheckpointError: the hub and the cache do not give it; the message says why.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except Exception as error:
        raise hub_error(name, error) from None


def hub_error(name: str, error: Exception) -> CheckpointError:
    """Say why the hub, or its local cache, has not given a checkpoint.

    Args:
        name: what the user called it.
        error: what huggingface_hub raised.
    """
    from huggingface_hub import errors

    # The first kind that fits; subclasses stand before their bases.
    kinds: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (errors.HFValidationError, f"{name!r} is neither a directory here nor a valid hub name"),
        (errors.GatedRepoError, f"{name} is gated: accept its terms on the hub, then log in with `hf auth login`"),
        (errors.RepositoryNotFoundError, f"{name} is neither a directory here nor a model on the hub"),
        (
            errors.RevisionNotFoundError,
            f"{name} on the hub has no such revision: take a branch, a tag or a commit of it",
        ),
        (errors.RemoteEntryNotFoundError, f"{name} on the hub is no transformers checkpoint: it has no config.json"),
    ]
    for kind, message in kinds:
        if isinstance(error, kind):
            return CheckpointError(message)
    return CheckpointError(
        f"{name} is no directory here and not in the local cache, and the hub cannot be reached: "
        "check the name and the connection, or download the checkpoint elsewhere and give its directory"
    )
