"""Where the tasks' questions come from: the hub, its cache, or a folder of the user's.

A folder of data holds one folder for each data set, named by its key (`divprune/evaluation/datasets.py`):

    FOLDER/pope/test-00000-of-00002.parquet      parquet files, or what `Dataset.save_to_disk` wrote
    FOLDER/gqa/testdev_balanced_images/...       configurations in folders of their names, as on the hub
    FOLDER/activitynet/videos/v_abc.mp4          videos
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from divprune.errors import EvaluationError
from divprune.evaluation.datasets import TASK_PREFIX
from divprune.lmms_eval_plugin.data.revisions import data_revision

__all__ = ["TASKS", "data_revision", "task_manager"]

TASKS = Path(__file__).parents[1] / "tasks"
VIDEOS = "videos"
_NO_QUESTIONS = {VIDEOS, "testdev_balanced_images"}  # folders of videos, and of GQA's images
_SHARES_DATA = {"seedbench_video": "seedbench", "egoschema_subset": "egoschema"}
_SPLITS = ("train", "validation", "val", "dev", "test")


def data_key(task: str) -> str | None:
    """Return the key of the data set of one of our tasks, None for other tasks."""
    return task.removeprefix(TASK_PREFIX) if task.startswith(TASK_PREFIX) else None


def data_folder_of(task: str, data: Path) -> Path:
    """Locate where a task's data is looked for: its own folder, or the one of the data set that it is part of.

    Raises:
        EvaluationError: there is no such folder, or the task is not ours.
    """
    key = data_key(task)
    if key is None:
        raise EvaluationError(f"data can come from a folder for tasks that begin with {TASK_PREFIX}, got {task!r}")
    names = [key, *([_SHARES_DATA[key]] if key in _SHARES_DATA else [])]
    for name in names:
        if (data / name).is_dir():
            return data / name
    raise EvaluationError(f"the data folder must hold {' or '.join(names)} for the task {task}, got {data}")


@dataclass(frozen=True)
class LocalTable:
    """A table of questions in files.

    Attributes:
        builder: how `datasets` reads it: "parquet" or "arrow".
        files: in order.
    """

    builder: str
    files: tuple[Path, ...]


def local_table(folder: Path, configuration: str | None, split: str) -> LocalTable:
    """Find the files of a split below a data set's folder.

    Args:
        folder: of the data set.
        configuration: the folder within it, if it is there.
        split: if files or folders are named by splits, those of this one; else all.

    Raises:
        EvaluationError: there are none.
    """
    inner = folder / configuration if configuration and (folder / configuration).is_dir() else folder
    for builder, pattern in (("arrow", "*.arrow"), ("parquet", "*.parquet")):
        files = [path for path in sorted(inner.rglob(pattern)) if not path.name.startswith("cache-")]
        files = [path for path in files if _NO_QUESTIONS.isdisjoint(path.relative_to(inner).parts)]
        chosen = [path for path in files if _split_of(path.relative_to(inner)) == split]
        unnamed = [path for path in files if _split_of(path.relative_to(inner)) is None]
        if chosen or unnamed:
            return LocalTable(builder, tuple(chosen or unnamed))
    raise EvaluationError(f"a data set's folder must hold .parquet or .arrow files of its split {split!r}, got {inner}")


def _split_of(path: Path) -> str | None:
    """Return the split that a file's name or folder states."""
    for part in reversed(path.parts):
        word = re.split(r"[-_.]", part)[0]
        if part.startswith(("val2014", "testdev", "lite")) or word in _SPLITS:
            return word
    return None


@dataclass(frozen=True)
class LocalData:
    """The user's folder of data sets."""

    folder: Path

    def changes(self, task: str, config: dict[str, Any]) -> dict[str, Any]:
        """Return what of one of our tasks' configuration is different with the data from this folder."""
        folder = data_folder_of(task, self.folder)
        table = local_table(folder, config.get("dataset_name"), config["test_split"])
        files = {config["test_split"]: [str(path) for path in table.files]}
        changed = {"dataset_path": table.builder, "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        options = {name: dict(values) for name, values in (config.get("lmms_eval_specific_kwargs") or {}).items()}
        for values in options.values():
            if "videos" in values:
                values["videos"] = str((folder / VIDEOS).resolve())
            if "images" in values:
                values |= {"images": str((folder / values["images_name"]).resolve()), "images_name": None}
        return changed | ({"lmms_eval_specific_kwargs": options} if options else {})


class PaperTaskManager(TaskManager):
    """lmms-eval's index of tasks, with ours, and with the data of ours from the user's folder."""

    def __init__(self, data_folder: Path | None, include_paths: Sequence[str], model_name: str | None = None) -> None:
        self.local = LocalData(data_folder.resolve()) if data_folder else None
        super().__init__(include_path=[str(TASKS), *include_paths], model_name=model_name)

    def _get_config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = dict(super()._get_config(name))
        if self.local and data_key(name) is not None and isinstance(config.get("task"), str):
            config |= self.local.changes(name, config)
        return config

    def leaves(self, names: Sequence[str]) -> Iterator[str]:
        """Return the tasks that these names of tasks, groups and tags stand for."""
        for name in names:
            entry = self.task_index[name]
            if entry["type"] in ("group", "tag"):
                inner = entry["task"] if entry["task"] != -1 else self.simple_config(name)["task"]
                yield from self.leaves([each if isinstance(each, str) else each["task"] for each in inner])
            else:
                yield name

    def simple_config(self, name: str) -> dict[str, Any]:
        """Return a task's file as it is, without importing the functions that it names."""
        path = self.task_index[name]["yaml_path"]
        return {} if path == -1 else dict(load_yaml_config(path, mode="simple"))

    def scores_captions(self, name: str) -> bool:
        """Tell whether a task's metrics are those of captions."""
        metrics = self.simple_config(name).get("metric_list") or []
        return any(str(each.get("metric", "")).endswith(("CIDEr", "METEOR")) for each in metrics)


def task_manager(
    data_folder: Path | None = None, include_paths: Sequence[str | Path] = (), model_name: str | None = None
) -> PaperTaskManager:
    """Index lmms-eval's tasks, ours and the user's.

    Args:
        data_folder: where the data sets of our tasks are, one folder each; None for the hub and its cache.
        include_paths: folders with tasks of the user's.
        model_name: lmms-eval's name of the model; some of today's tasks ask it in words of its own.

    Raises:
        EvaluationError: the folder does not exist.
    """
    if data_folder is not None and not data_folder.is_dir():
        raise EvaluationError(f"data must be a folder, got {data_folder}")
    return PaperTaskManager(data_folder, [str(path) for path in include_paths], model_name)
