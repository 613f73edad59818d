"""Whether a data set is complete, before a model is loaded: files, columns and videos."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.data.local_data import LocalTable, PaperTaskManager, data_key
from divprune.lmms_eval_plugin.scoring.documents import video_folder, video_name, videos

_MMBENCH = ("index", "question", "hint", "answer", "category", "image", "source", "split")
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")

# The columns that a task's prompt, images and scorer read.
COLUMNS: dict[str, tuple[str, ...]] = {
    "coco2017": ("image", "id", "answer"),
    "flickr30k": ("image", "img_id", "caption"),
    "gqa": ("imageId", "question", "answer"),
    "mmbench": (*_MMBENCH, "A", "B", "C", "D", "L2-category"),
    "mme": ("question_id", "image", "question", "answer", "category"),
    "mmmu": ("id", "question", "options", "image_1", "answer", "question_type"),
    "nocaps": ("image", "image_id", "annotations_captions"),
    "okvqa": ("question_id", "image", "question", "answers"),
    "pope": ("question_id", "question", "answer", "image"),
    "scienceqa": ("image", "question", "choices", "answer", "hint"),
    "seedbench": (*_CHOICES, "image", "question", "answer", "data_type", "question_id"),
    "activitynet": ("video_name", "question", "question_id", "answer"),
    "videochatgpt": ("video_name", "question", "answer"),
    "nextqa": ("video", "question", "answer", "type", "additional_ref_answer"),
    "egoschema": ("video_idx", "question", "option"),
}
COLUMNS |= {"seedbench_video": COLUMNS["seedbench"], "egoschema_subset": (*COLUMNS["egoschema"], "answer")}

_SHOWN = 3  # missing videos that a message names


def check_local_data(task: str, manager: PaperTaskManager) -> None:
    """Look at the files of one of our tasks in the user's folder.

    Raises:
        EvaluationError: files, columns or videos are missing.
    """
    config = manager._get_config(task)
    key = data_key(task) or task
    files = config["dataset_kwargs"]["data_files"][config["test_split"]]
    table = LocalTable(config["dataset_path"], tuple(map(Path, files)))
    lacking = [name for name in COLUMNS[key] if name not in table_columns(table)]
    where = table.files[0].parent
    if lacking:
        raise EvaluationError(f"the data of {task} in {where} must have the columns {', '.join(lacking)}")
    options = (config.get("lmms_eval_specific_kwargs") or {}).get("default", {})
    images = options.get("images")
    if images and "image" not in table_columns(table) and not any(Path(images).rglob("*.parquet")):
        raise EvaluationError(f"the data of {task} must have a column 'image', or parquet files in {images}")
    if "videos" in options:
        _check_videos(task, table, options)


def _check_videos(task: str, table: LocalTable, options: dict[str, Any]) -> None:
    folder = video_folder(options["videos"])
    if not folder.is_dir():
        raise EvaluationError(f"the videos of {task} must be in {folder}, which is not there")
    videos.cache_clear()
    there, column = videos(folder), options["clip_column"]
    names = dict.fromkeys(video_name({column: name}, options) for name in _column(table, column))
    missing = [name for name in names if name.removesuffix(".mp4") not in there]
    if missing:
        listed = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise EvaluationError(f"{len(missing)} of {len(names)} videos of {task} are not in {folder}: {listed}")


def table_columns(table: LocalTable) -> Sequence[str]:
    """Return the names of a table's columns.

    Raises:
        EvaluationError: a file is not of its kind.
    """
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if table.builder == "parquet":
            return list(parquet.read_schema(table.files[0]).names)
        with pyarrow.memory_map(str(table.files[0])) as source:
            return list(ipc.open_stream(source).schema.names)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise EvaluationError(f"{table.files[0]} is not a {table.builder} file: {error}") from error


def _column(table: LocalTable, name: str) -> list[Any]:
    import pyarrow
    from pyarrow import ipc, parquet

    values: list[Any] = []
    for path in table.files:
        if table.builder == "parquet":
            values += parquet.read_table(path, columns=[name])[name].to_pylist()
        else:
            with pyarrow.memory_map(str(path)) as source:
                values += ipc.open_stream(source).read_all()[name].to_pylist()
    return values


def check_cached_data(task: str, manager: PaperTaskManager) -> None:
    """Without the network, look for a task's data set in Hugging Face's caches.

    Raises:
        EvaluationError: it is not there.
    """
    import datasets
    from huggingface_hub import constants

    if not (constants.HF_HUB_OFFLINE or datasets.config.HF_DATASETS_OFFLINE):
        return
    config = manager.simple_config(task)
    path = str(config.get("dataset_path") or "")
    if path.count("/") != 1 or Path(path).exists():
        return
    if not _is_cached(path, Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)):
        raise EvaluationError(
            f"{task} needs the data set {path}, which is not in the caches of Hugging Face, and the network is "
            f"switched off (HF_HUB_OFFLINE); download it first, or give a folder of data that has it"
        )
    kwargs = config.get("dataset_kwargs") or {}
    if kwargs.get("video") and not video_folder(str(kwargs["cache_dir"])).is_dir():
        raise EvaluationError(f"the videos of {task} must be in {video_folder(str(kwargs['cache_dir']))}")


def _is_cached(path: str, hub: Path, *tables: Path) -> bool:
    """Tell whether a data set's files, or its tables, are in a cache.

    The datasets library names tables in lower case with underscores within words.
    """
    own = os.environ.get("LMMS_EVAL_DATASETS_CACHE")  # lmms-eval's place for tables
    folders = [folder for folder in (*tables, *([Path(own)] if own else [])) if folder.is_dir()]
    names = {_plain(each.name) for folder in folders for each in folder.iterdir()}
    return (hub / f"datasets--{path.replace('/', '--')}").is_dir() or _plain(path.replace("/", "___")) in names


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
