"""Where questions come from: folders of the user's in their layouts, what is missing in them, and their versions."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

import datasets

from divprune.errors import EvaluationError
from divprune.evaluation.datasets import DATA_SETS, TASK_PREFIX
from divprune.lmms_eval_plugin.data.local_data import LocalData, PaperTaskManager, data_revision, task_manager
from divprune.lmms_eval_plugin.runs import preflight
from divprune.lmms_eval_plugin.scoring.documents import video_folder
from divprune.records import checksum
from tests.harness.data_making import picture, table, write_clip
from tests.harness.data_schemas import MADE
from tests.harness.scripted import ScriptedChat, evaluate, metric

POPE = TASK_PREFIX + "pope"


def of_folder(manager: PaperTaskManager, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PaperTaskManager:
    """The same index with data from another folder: indexing takes seconds."""
    monkeypatch.setattr(manager, "local", LocalData(folder))
    return manager


def score(manager: PaperTaskManager, key: str) -> float:
    task = TASK_PREFIX + key
    metrics = {row.key: row.metric for row in DATA_SETS}
    return metric(evaluate(ScriptedChat({task: MADE[key].half}), [task], manager), task, metrics[key])


def test_our_tasks_todays_and_groups_are_known(manager: PaperTaskManager) -> None:
    for row in DATA_SETS:
        assert {row.task, row.todays_task} <= set(manager.all_tasks)
    image, video = (list(manager.leaves([f"divprune_paper_{medium}"])) for medium in ("image", "video"))
    assert image == [row.task for row in DATA_SETS if row.medium == "image"]
    assert video == [row.task for row in DATA_SETS if row.medium == "video"]
    assert list(manager.leaves(["divprune_paper"])) == image + video


def test_the_users_own_tasks_are_known_beside_ours(tmp_path: Path, data: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"include: {Path(POPE_FILE)}\ntask: my_pope\n")
    manager = task_manager(data, [tmp_path])
    assert {"my_pope", POPE} <= set(manager.all_tasks)
    with pytest.raises(EvaluationError, match="data must be a folder"):
        task_manager(tmp_path / "missing")


POPE_FILE = Path(__file__).parents[2] / "divprune" / "lmms_eval_plugin" / "tasks" / "pope.yaml"


@pytest.mark.parametrize("layout", ["single file", "several files", "Dataset", "DatasetDict"])
def test_layouts_of_a_folder(
    layout: str, manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = MADE["pope"], tmp_path / "pope"
    rows = table(made.documents, made.features)
    folder.mkdir()
    if layout == "single file":
        rows.to_parquet(folder / "anything.parquet")
    elif layout == "several files":
        for place in range(2):
            rows.select(range(2 * place, 2 * place + 2)).to_parquet(folder / f"test-0000{place}-of-00002.parquet")
        rows.to_parquet(folder / "train-00000-of-00001.parquet")
    elif layout == "Dataset":
        rows.save_to_disk(folder)
    else:
        datasets.DatasetDict({"test": rows, "train": rows.select([0])}).save_to_disk(folder)
    manager = of_folder(manager, tmp_path, monkeypatch)
    assert preflight.check([POPE], manager) == {}
    assert score(manager, "pope") == 0.5


def test_gqas_pictures_may_stand_in_the_table_of_questions(
    manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MADE["gqa"]
    rows = [document | {"image": picture(place)} for place, document in enumerate(made.documents)]
    (tmp_path / "gqa").mkdir()
    table(rows, made.features | {"image": datasets.Image()}).to_parquet(tmp_path / "gqa" / "testdev.parquet")
    manager = of_folder(manager, tmp_path, monkeypatch)
    assert preflight.check(["divprune_paper_gqa"], manager) == {}
    assert score(manager, "gqa") == 0.5


def test_all_data_is_found_complete(manager: PaperTaskManager, settings: Any, judge_stub: Any) -> None:
    found = preflight.check(["divprune_paper", "divprune_paper_egoschema_subset"], manager)
    assert set(found) == {"tokenizer", "judge", "egoschema_url"}
    assert found["tokenizer"] == "python"


def test_missing_files_are_named(manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = of_folder(manager, tmp_path, monkeypatch)
    with pytest.raises(EvaluationError, match=f"must hold pope for the task {POPE}, got {tmp_path}"):
        preflight.check([POPE], manager)
    (tmp_path / "pope").mkdir()
    with pytest.raises(EvaluationError, match=r"\.parquet or \.arrow files of its split 'test', got"):
        preflight.check([POPE], manager)
    (tmp_path / "pope" / "test.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(EvaluationError, match=r"test.parquet is not a parquet file"):
        preflight.check([POPE], manager)


def test_missing_columns_are_named(manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MADE["pope"]
    rows = table(made.documents, made.features).remove_columns(["answer", "image"])
    (tmp_path / "pope").mkdir()
    rows.to_parquet(tmp_path / "pope" / "test.parquet")
    with pytest.raises(EvaluationError, match="must have the columns answer, image"):
        preflight.check([POPE], of_folder(manager, tmp_path, monkeypatch))


def test_missing_clips_are_named(manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MADE["egoschema_subset"].write(tmp_path)
    videos = tmp_path / "egoschema" / "videos"
    task = "divprune_paper_egoschema_subset"
    manager = of_folder(manager, tmp_path, monkeypatch)
    (videos / "0074f737-2.mp4").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 4 videos of .* are not in .*videos: 0074f737-2$"):
        preflight.check([task], manager)
    write_clip(videos / "inside" / "0074f737-2.MKV", 0)
    assert preflight.check([task], manager) == {}
    shutil.rmtree(videos)
    with pytest.raises(EvaluationError, match="videos, which is not there"):
        preflight.check([task], manager)


def test_gqas_missing_pictures_are_named(
    manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MADE["gqa"].write(tmp_path)
    with pytest.raises(EvaluationError, match=r"column 'image', or parquet files in .*testdev_balanced_images"):
        preflight.check(["divprune_paper_gqa"], of_folder(manager, tmp_path, monkeypatch))


def test_data_that_is_not_in_the_caches_is_found_without_network(
    manager: PaperTaskManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(manager, "local", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    with pytest.raises(EvaluationError, match="POPE, which is not in the caches of Hugging Face"):
        preflight.check([POPE], manager)
    with pytest.raises(EvaluationError, match="COCO-Caption2017, which is not in the caches"):
        preflight.check(["coco2017_cap_val"], manager)
    (tmp_path / "datasets--lmms-lab-encoder--POPE").mkdir()
    assert preflight.check([POPE], manager) == {}
    (tmp_path / "datasets" / "lmms-eval___ego_schema").mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with pytest.raises(EvaluationError, match=r"videos of divprune_paper_egoschema_subset must be in .*home/egoschema"):
        preflight.check(["divprune_paper_egoschema_subset"], manager)
    video_folder("egoschema").mkdir(parents=True)
    assert preflight.check(["divprune_paper_egoschema_subset"], manager) == {}


def test_todays_video_tasks_need_a_home_of_hugging_face(
    manager: PaperTaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    with pytest.raises(EvaluationError, match="activitynetqa needs HF_HOME to be set; divprune_paper_activitynet does"):
        preflight.check(["activitynetqa"], manager)


def test_unknown_tasks_are_refused_with_the_nearest_name(manager: PaperTaskManager) -> None:
    with pytest.raises(EvaluationError, match="no task 'divprune_paper_popes'; did you mean 'divprune_paper_pope'"):
        preflight.check(["divprune_paper_popes"], manager)
    with pytest.raises(EvaluationError, match=r"no task '§§§§'$"):
        preflight.check(["§§§§"], manager)


def test_java_is_looked_for_before_anything_is_generated(
    manager: PaperTaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divprune.lmms_eval_plugin.scoring.settings import ScoringSettings
    from tests.harness.task_fixtures import indexed

    monkeypatch.setattr(shutil, "which", lambda name: None)
    task = "divprune_paper_coco2017"
    with pytest.raises(EvaluationError, match="CIDEr needs the program 'java'"):
        preflight.check([task], manager, ScoringSettings())
    assert preflight.check([task], manager, ScoringSettings("python")) == {"tokenizer": "python"}
    assert preflight.needs("coco2014_cap_val", indexed(manager.local.folder)) == {"java"}
    with pytest.raises(EvaluationError, match="lmms-eval's own tasks have no such choice"):
        preflight.check_scoring(["flickr30k_test"], manager, ScoringSettings("python"))


def test_revisions_of_local_data_change_with_its_content(manager: PaperTaskManager, data: Path, tmp_path: Path) -> None:
    task = manager.load_task_or_group(POPE)[POPE]
    found = data_revision(task)
    expected = {"path": str(data / "pope"), "name": None, "split": "test", "num_samples": 4}
    assert found == expected | {"fingerprint": found["fingerprint"]}
    (copy,) = shutil.copytree(data / "pope", tmp_path / "pope").glob("*.parquet")
    assert checksum([copy]) == found["fingerprint"]
    with copy.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    assert checksum([copy]) != found["fingerprint"]


def test_revisions_of_the_hub_are_commits() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = f"hf://datasets/lmms-lab-encoder/POPE@{commit}/data/test-00000-of-00003.parquet"
    config = SimpleNamespace(
        test_split="test",
        validation_split=None,
        dataset_path="lmms-lab-encoder/POPE",
        dataset_name=None,
        dataset_kwargs=None,
    )

    class Table(list[int]):
        info = SimpleNamespace(download_checksums={source: {}})
        cache_files: tuple[dict[str, str], ...] = ()

    rows = Table([1, 2])
    expected = {"path": "lmms-lab-encoder/POPE", "name": None, "split": "test", "num_samples": 2}
    task = SimpleNamespace(config=config, dataset={"test": rows})
    assert data_revision(task) == expected | {"revision": commit}
    rows.info = SimpleNamespace(download_checksums=None)
    assert data_revision(task) == expected
    rows.cache_files = ({"filename": f"/cache/lmms-lab-encoder___pope/default/0.0.0/{commit}/pope-test.arrow"},)
    assert data_revision(task) == expected | {"revision": commit}


def test_large_files_are_fingerprinted_by_pieces(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(20_000_000))
    before = checksum([file])
    with file.open("r+b") as opened:
        opened.seek(-10, 2)
        opened.write(b"end")
    assert checksum([file]) != before
