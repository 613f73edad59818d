"""Questions about generated scenes as tasks of a user's: schemas and scorers of POPE and COCO, own prompts."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, Features, Value
from datasets import Image as Pictures

from divprune.embedded import Question, questions, scene

POPE, CAPTIONS, CHOICE = "scenes_pope", "scenes_captions", "scenes_choice"

POPE_TASK = """
task: scenes_pope
doc_to_visual: !function lmms_eval.tasks.pope.utils.pope_doc_to_visual
doc_to_text: !function lmms_eval.tasks.pope.utils.pope_doc_to_text
doc_to_target: answer
process_results: !function lmms_eval.tasks.pope.utils.pope_process_results
metric_list:
  - metric: pope_f1_score
    aggregation: !function lmms_eval.tasks.pope.utils.pope_aggregate_f1_score
    higher_is_better: true
  - metric: pope_accuracy
    aggregation: !function lmms_eval.tasks.pope.utils.pope_aggregate_accuracy
    higher_is_better: true
lmms_eval_specific_kwargs:
  default: {pre_prompt: "", post_prompt: ""}
"""
CAPTION_TASK = """
task: scenes_captions
doc_to_visual: !function lmms_eval.tasks.coco_cap.utils.coco_doc_to_visual
doc_to_text: prompt
doc_to_target: answer
process_results: !function divprune.lmms_eval_plugin.scoring.captions.coco
metric_list:
  - metric: coco_CIDEr
    aggregation: !function divprune.lmms_eval_plugin.scoring.captions.cider
    higher_is_better: true
"""
CHOICE_TASK = """
task: scenes_choice
output_type: multiple_choice
doc_to_visual: !function lmms_eval.tasks.pope.utils.pope_doc_to_visual
doc_to_text: question
doc_to_target: answer
doc_to_choice: ["yes", "no"]
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
GENERATED = """output_type: generate_until
generation_kwargs:
  {max_new_tokens: %d, temperature: 0, do_sample: false, image_aspect_ratio: original, until: ["ASSISTANT:"]}
"""
DATA = """test_split: test
dataset_path: parquet
dataset_kwargs: {data_files: {test: %s}}
"""


def asked(num_scenes: int, kind: str) -> list[Question]:
    """The questions of a kind about the first test scenes."""
    found = [question for seed in range(num_scenes) for question in questions(scene(seed, "test"))]
    return [question for question in found if question.kind == kind]


def write_scene_tasks(folder: Path, num_scenes: int) -> Path:
    """Write the three tasks and their data; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    existence, captions = asked(num_scenes, "existence"), asked(num_scenes, "caption")
    short = {
        "id": [str(place) for place in range(len(existence))],
        "question_id": [str(place) for place in range(len(existence))],
        "question": [each.prompt for each in existence],
        "answer": [each.answer for each in existence],
        "category": ["random"] * len(existence),
    }
    long = {
        "question_id": [str(place) for place in range(len(captions))],
        "id": list(range(len(captions))),
        "prompt": [each.prompt for each in captions],
        "answer": [[each.answer] for each in captions],
    }
    files = {
        "pope": _written(folder, "pope", short, existence),
        "captions": _written(folder, "captions", long, captions),
    }
    for name, text, data in (
        (POPE, POPE_TASK + GENERATED % 6, "pope"),
        (CAPTIONS, CAPTION_TASK + GENERATED % 48, "captions"),
        (CHOICE, CHOICE_TASK, "pope"),
    ):
        (folder / f"{name}.yaml").write_text(text + DATA % files[data], encoding="utf-8")
    return folder


def _written(folder: Path, name: str, columns: dict[str, list], about: Sequence[Question]) -> Path:
    pictures = [scene(question.scene_seed, "test").image for question in about]
    table = Dataset.from_dict(columns | {"image": pictures}, features=_features(columns))
    path = folder / f"{name}.parquet"
    table.to_parquet(path)
    return path


def _features(columns: dict[str, list]) -> Features:
    kinds = {str: Value("string"), int: Value("int64"), list: [Value("string")]}
    return Features({name: kinds[type(values[0])] for name, values in columns.items()} | {"image": Pictures()})
