"""What a question of a data set shows and asks: images, videos and words, before any model.

Functions with `options` are given the task's `lmms_eval_specific_kwargs`, flattened by lmms-eval.
"""

import ast
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from divprune.errors import EvaluationError

Document = Mapping[str, Any]
Options = Mapping[str, Any]

CLIP_ENDINGS = frozenset({".mp4", ".webm", ".mkv", ".avi", ".mov", ".mpg", ".m4v"})


def video_folder(name: str) -> Path:
    """Return the folder of a data set's videos: as it is if absolute, else below Hugging Face's home."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(home).expanduser() / name


@lru_cache(maxsize=16)
def videos(folder: Path) -> Mapping[str, Path]:
    """Every video below the folder, by its name without ending.

    Raises:
        EvaluationError: there is no such folder.
    """
    if not folder.is_dir():
        raise EvaluationError(f"no folder {folder}; the data set's videos must be there")
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in CLIP_ENDINGS)
    return {path.stem: path for path in found}


def video_name(document: Document, options: Options) -> str:
    """Return the name of the document's video without ending."""
    return options.get("clip_prefix", "") + str(document[options["clip_column"]])


def video(document: Document, options: Options) -> list[str]:
    """Return the path of the document's video.

    Raises:
        EvaluationError: it is not there.
    """
    folder = video_folder(options["videos"])
    name = video_name(document, options)
    path = videos(folder).get(name.removesuffix(".mp4"))
    if path is None:
        raise EvaluationError(f"no video {name!r} in {folder}")
    return [str(path)]


def gqa_image(document: Document, options: Options) -> list[Image.Image]:
    """Return the image of a question of GQA, from its own column or from the data set's table of images."""
    own = document.get("image")
    if own is None:
        table, rows = _gqa_table(options["images"], options.get("images_name"), options["images_split"])
        own = table[rows[document["imageId"]]]["image"]
    return [own.convert("RGB")]


@lru_cache(maxsize=4)
def _gqa_table(path: str, name: str | None, split: str) -> tuple[Any, dict[str, int]]:
    """Return the table of images, undecoded, and the row of each image's id."""
    from datasets import load_dataset

    cache = os.environ.get("LMMS_EVAL_DATASETS_CACHE") or None  # lmms-eval's place for tables
    if name is None:
        files = sorted(map(str, Path(path).rglob("*.parquet")))
        table = load_dataset("parquet", data_files={split: files}, split=split, cache_dir=cache)
    else:
        table = load_dataset(path, name, split=split, cache_dir=cache)
    return table, {str(key): row for row, key in enumerate(table["id"])}


def only_images(table: Any) -> Any:
    """SEED-Bench's questions about one image."""
    return _of_type(table, "image")


def only_videos(table: Any) -> Any:
    """SEED-Bench's questions about videos."""
    return _of_type(table, "video")


def _of_type(table: Any, wanted: str) -> Any:
    return table.select([row for row, kind in enumerate(table["data_type"]) if kind == wanted])


def mmmu_images(document: Document) -> list[Image.Image]:
    """Return the images that the question or its options name."""
    from lmms_eval.tasks.mmmu import utils

    images: list[Image.Image] = utils.mmmu_doc_to_visual(document)
    return images


def mmmu_question(document: Document, options: Options) -> str:
    """Return the question with its options; `<image 1>` stays as it is, and all images stand before the text.

    lmms-eval's own function answers differently once another task has asked for interleaved images.
    """
    if document["question_type"] == "multiple-choice":
        choices = ast.literal_eval(document["options"])
        lines = "\n".join(f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(choices))
        return f"{document['question']}\n{lines}\n\n{options['multiple_choice_prompt']}"
    return f"{document['question']}\n\n{options['open_ended_prompt']}"


def activitynet_question(document: Document, options: Options) -> str:
    """ActivityNet-QA's questions are lower-case and without a question mark in the data set."""
    return f"{options['pre_prompt']}{document['question'].capitalize()}?{options['post_prompt']}"


def plain_question(document: Document, options: Options) -> str:
    """Return the question between the task's prompts."""
    return f"{options['pre_prompt']}{document['question'].strip()}{options['post_prompt']}"


def unstripped_question(document: Document, options: Options) -> str:
    """Return the question between the task's prompts, with its blanks."""
    return f"{options['pre_prompt']}{document['question']}{options['post_prompt']}"


def question_with_options(document: Document, options: Options) -> str:
    """EgoSchema's question, one option a line."""
    lines = "\n".join([document["question"], *document["option"]])
    return f"{options['pre_prompt']}{lines}{options['post_prompt']}"


def answer(document: Document) -> str:
    """Return what the data set expects; EgoSchema keeps the answers of its full set to itself."""
    return str(document["answer"])
