"""`divprune tune` end to end: questions in, a setting that commands take out, and a clear end where there is none."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from divprune import get_method
from divprune.embedded import questions, scene
from divprune.errors import ArgumentError
from divprune.experiments import Tuned, TuneOptions, tune
from divprune.experiments.tuning.agreement import ComparedAnswer, agreement
from divprune.experiments.tuning.asking import Asker, Reference
from divprune.tuned_setting import read_tuned
from tests.support.commands import Command

SHORT = ("--keep-ratios", "0.02 0.25", "--tolerance", 0.3)


def write_questions(folder: Path, scenes: Sequence[int], **changes: Any) -> Path:
    """Two questions about each of some scenes, with answers; `changes` to every line, None takes a field out."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in scenes:
        shown = scene(seed, "test")
        shown.image.save(folder / f"{seed}.png")
        for asked in [each for each in questions(shown) if each.kind != "caption"][:2]:
            fields = {"image": f"{seed}.png", "prompt": asked.prompt, "answer": asked.answer} | changes
            lines.append({name: value for name, value in fields.items() if value is not None})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("asked"), range(20))


@pytest.fixture(scope="module")
def found(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("found")
    tuned = tune(
        TuneOptions(
            source,
            output=folder / "tuned.json",
            report=folder / "tuned.html",
            methods=("divprune",),
            keep_ratios=(0.02, 0.05, 0.25),
            tolerance=0.3,
        )
    )
    assert tuned is not None
    return tuned


def test_a_setting_with_its_evidence(found: Tuned) -> None:
    assert found.setting is not None
    assert read_tuned(found.output) == found.setting
    evidence = found.setting.evidence
    assert evidence["num_questions"] == 40
    assert evidence["num_choosing"] + evidence["num_confirming"] == 40
    assert evidence["loss"]["high"] <= 0.3
    assert evidence["answers"]["accuracy"]["num_questions"] == evidence["num_confirming"]
    assert evidence["num_encoder_passes"] == 20
    assert evidence["num_forwards"] < evidence["num_forwards_exhaustive"]
    assert found.sentences[0].startswith(f"divprune at keep ratio {found.setting.keep_ratio:g} loses")


def test_unpruned_blind_and_random_always_stand_beside(found: Tuned) -> None:
    rows = {(row["method"], row["keep_ratio"]): row for row in found.rows}
    assert found.setting is not None
    chosen = rows["divprune", found.setting.keep_ratio]
    assert chosen["is_chosen"]
    assert rows["unpruned", None]["retention"] == 1
    assert rows["blind", None]["retention"] == 0
    random = rows["random", found.setting.keep_ratio]
    assert random["num_questions"] == chosen["num_questions"] == found.evidence["num_confirming"]
    assert random["visual_tokens"] == chosen["visual_tokens"] == round(256 * found.setting.keep_ratio)
    assert chosen["kv_ratio"] < rows["unpruned", None]["kv_ratio"] == 1
    assert all(row["ttft_seconds"] > 0 for row in found.rows)


def test_the_report_needs_no_network_and_shows_what_changed(found: Tuned) -> None:
    page = (found.output.parent / "tuned.html").read_text()
    assert "<title>divprune: tuned on 40 questions</title>" in page
    assert "http" not in page.replace("http-equiv", "")
    for changed in found.changed:
        assert changed.prompt in page
    assert page.count("data-kept=") == len(found.changed)


def test_what_a_full_run_says_is_what_generate_says(found: Tuned, source: Path) -> None:
    """Answers counted as the same are those that the pruned model writes."""
    from divprune import prune
    from divprune.media import load_image
    from divprune.prompting import build_inputs, decode_answer

    assert found.setting is not None
    changed = {each.id for each in found.changed}
    loaded, differing = found.loaded, set()
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    confirmed = found.evidence["num_confirming"]
    for number, line in enumerate(lines, start=1):
        inputs = build_inputs(loaded, [load_image(source.parent / line["image"])], line["prompt"])
        arguments: dict[str, Any] = {"max_new_tokens": 64, "do_sample": False}
        unpruned = decode_answer(loaded, inputs, loaded.model.generate(**inputs, **arguments))
        with prune(loaded.model, **found.setting.arguments):
            pruned = decode_answer(loaded, inputs, loaded.model.generate(**inputs, **arguments))
        if pruned != unpruned:
            differing.add(str(number))
    assert changed <= differing
    assert found.evidence["answers"]["same"]["value"] == pytest.approx(1 - len(changed) / confirmed)


def test_a_killed_run_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Tuned) -> None:
    options = TuneOptions(
        source, output=tmp_path / "tuned.json", methods=("divprune",), keep_ratios=(0.02, 0.05, 0.25), tolerance=0.3
    )
    asked: list[int] = []
    judged = Asker._judged

    def counted(self: Asker, setting: Any, place: int) -> Any:
        if len(asked) == 15:
            raise KeyboardInterrupt
        asked.append(place)
        return judged(self, setting, place)

    monkeypatch.setattr(Asker, "_judged", counted)
    with pytest.raises(KeyboardInterrupt):
        tune(options)
    assert not options.output.exists()
    monkeypatch.setattr(Asker, "_judged", judged)
    again = tune(options)
    assert again is not None
    assert again.setting is not None
    assert found.setting is not None
    assert again.setting.arguments == found.setting.arguments
    assert again.evidence["loss"] == found.evidence["loss"]
    assert again.evidence["num_forwards"] == found.evidence["num_forwards"] - 15
    assert again.evidence["num_encoder_passes"] < 20 + 20
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]


def test_two_processes_find_what_one_finds(source: Path, tmp_path: Path, found: Tuned) -> None:
    arguments = ("--methods", "divprune", "--keep-ratios", "0.02 0.05 0.25", "--tolerance", "0.3")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "divprune"]
    command += ["tune", "--input", str(source), "--output", str(tmp_path / "tuned.json"), *arguments]
    root = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert found.setting is not None
    setting = read_tuned(tmp_path / "tuned.json")
    assert setting.arguments == found.setting.arguments
    assert setting.evidence["loss"] == found.evidence["loss"]
    assert setting.evidence["num_forwards"] == found.evidence["num_forwards"]
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]


def test_the_other_way_round(source: Path, tmp_path: Path, divprune: Command) -> None:
    output = tmp_path / "tuned.json"
    outcome = divprune(
        "tune", "--input", source, "--output", output, "--target-tokens", 40, "--methods", "divprune random", *SHORT
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert read_tuned(output).keep_ratio == 0.02
    outcome = divprune("tune", "--input", source, "--output", output, "--target-tokens", 2, *SHORT)
    assert outcome.exit_code == 2
    assert "no method is within the cost" in outcome.stderr


def test_nothing_qualifies(source: Path, tmp_path: Path, divprune: Command) -> None:
    output = tmp_path / "tuned.json"
    arguments = ("--methods", "random", "--keep-ratios", "0.02", "--tolerance", 0.01, "--json")
    outcome = divprune("tune", "--input", source, "--output", output, *arguments)
    assert outcome.exit_code == 2
    assert outcome.json["setting"] is None
    assert "Nothing qualifies" in " ".join(outcome.json["sentences"])
    assert not output.exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds nothing to ask about"),
        ([{"prompt": "What is red?"}], "without images there is nothing to prune"),
        ([{"image": "gone.png", "prompt": "What?"}], "1 images are missing, such as"),
        (["not json"], "line 1"),
        ([{"image": "0.png", "prompt": "What?", "answer": 3}], "answer must be a text"),
        ([{"image": "0.png", "prompt": "What is red?"}], "too few to promise anything by"),
    ],
)
def test_bad_questions_have_a_clear_end(lines: list[Any], message: str, tmp_path: Path, divprune: Command) -> None:
    scene(0, "test").image.save(tmp_path / "0.png")
    path = tmp_path / "questions.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    outcome = divprune("tune", "--input", path, "--output", tmp_path / "tuned.json")
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert not (tmp_path / "tuned.json").exists()


def test_a_damaged_image_is_named(tmp_path: Path, divprune: Command) -> None:
    path = write_questions(tmp_path, range(8))
    (tmp_path / "3.png").write_bytes(b"no image")
    outcome = divprune("tune", "--input", path, "--output", tmp_path / "tuned.json", *SHORT)
    assert outcome.exit_code == 2
    assert "3.png" in outcome.stderr


def test_answers_for_some_questions_only(tmp_path: Path) -> None:
    path = write_questions(tmp_path, range(12))
    lines = path.read_text().splitlines()
    some = [json.dumps({k: v for k, v in json.loads(line).items() if k != "answer"}) for line in lines[:12]]
    path.write_text("\n".join(some + lines[12:]) + "\n")
    found = tune(TuneOptions(path, output=tmp_path / "tuned.json", keep_ratios=(0.25,), tolerance=0.5))
    assert found is not None
    accuracy = found.evidence["answers"].get("accuracy", {"num_questions": 0})
    assert 0 < accuracy["num_questions"] < found.evidence["num_confirming"]


def test_a_model_that_does_not_look(
    source: Path, tmp_path: Path, divprune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Asker._reference

    def as_if_blind(self: Asker, place: int) -> Reference:
        found = reference(self, place)
        return replace(found, blind_log_likelihood=found.log_likelihood, blind_is_same=True)

    monkeypatch.setattr(Asker, "_reference", as_if_blind)
    outcome = divprune("tune", "--input", source, "--output", tmp_path / "tuned.json", *SHORT)
    assert outcome.exit_code == 2
    assert "the model does not look at these images: without them it answers 40 of 40" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tolerance", 1.5), "--tolerance must be in (0, 1)"),
        (("--confidence", 0), "--confidence must be in (0, 1)"),
        (("--keep-ratios", "2"), "keep_ratio"),
        (("--methods", "nosuch"), "nosuch"),
        (("--methods", "evs"), "evs"),
        (("--methods", "vtw:layer=1"), "says itself how many tokens stay"),
        (("--target-tokens", 3, "--target-ttft", 1), "give one target"),
    ],
)
def test_bad_arguments(
    arguments: tuple[Any, ...], message: str, source: Path, tmp_path: Path, divprune: Command
) -> None:
    outcome = divprune("tune", "--input", source, "--output", tmp_path / "tuned.json", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_every_command_prunes_as_the_file_says(
    found: Tuned, tmp_path: Path, divprune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.setting is not None
    path, ratio = found.output, found.setting.keep_ratio
    outcome = divprune("run", "--config", path, "--no-compare", "--repeats", 1, "--json")
    assert outcome.json["keep_ratio"] == ratio
    plain = divprune("run", "--keep-ratio", ratio, "--no-compare", "--repeats", 1, "--json")
    kept = [row["kept_indices"] for row in plain.json["rows"]]
    assert [row["kept_indices"] for row in outcome.json["rows"]] == kept
    assert "tuned on embedded" in outcome.stderr  # what it stands for

    bench = divprune("bench", "--config", path, "--repeats", 1, "--no-memory", "--new-tokens", 2, "--json")
    assert bench.json["config"]["keep_ratio"] == ratio
    assert {row["method"] for row in bench.json["rows"]} == {"unpruned", "random", "divprune"}

    scores = divprune("eval", "--config", path, "--limit", 2, "--output", tmp_path, "--json")
    assert scores.exit_code == 0, scores.stderr
    assert {row["keep_ratio"] for row in scores.json["rows"]} == {0.0, ratio, 1.0}  # blind, pruned, unpruned

    from divprune.lmms_eval_plugin.models.arguments import PruningArguments

    config = PruningArguments(tuned=str(path)).for_model(found.loaded.model).config()
    assert config is not None
    assert (config.method, config.keep_ratio) == (get_method("divprune"), ratio)

    served = divprune("serve", "embedded", "--config", path, "--dry-run")
    assert served.exit_code == 2  # there is no such directory: the embedded model is not served
    copy = tmp_path / "model"
    from divprune.embedded import checkpoint_path

    shutil.copytree(checkpoint_path(), copy)
    served = divprune("serve", copy, "--config", path, "--dry-run", "--json")
    assert served.exit_code == 0, served.stderr
    assert (served.json["method"], served.json["keep_ratio"]) == ("divprune", ratio)
    given: dict[str, Any] = {}
    monkeypatch.setattr("divprune.serving.run.answer_batch", lambda options, _: given.update(settings=options.settings))
    divprune("batch", copy, "--input", tmp_path, "--output", tmp_path / "answers.jsonl", "--config", path)
    assert (given["settings"].method, given["settings"].keep_ratio) == ("divprune", ratio)


@pytest.mark.parametrize("command", ["run", "bench", "eval"])
def test_a_file_and_options_beside_it(command: str, found: Tuned, divprune: Command) -> None:
    option = "--keep-ratios" if command == "eval" else "--keep-ratio"
    outcome = divprune(command, "--config", found.output, option, 0.5)
    assert outcome.exit_code == 2
    assert "--config says how to prune; leave" in outcome.stderr


def test_another_model_refuses_the_file(found: Tuned, divprune: Command, llava: Path, picture: Path) -> None:
    outcome = divprune("eval", "--suite", "scenes-video", "--config", found.output)
    assert "of another model (embedded" in outcome.error
    outcome = divprune("run", "--model", llava, "--image", picture, "--config", found.output)
    assert outcome.exit_code == 2
    assert "of another model (embedded" in outcome.error


def test_the_planned_time_is_told_before_the_questions_are_asked(
    source: Path, tmp_path: Path, divprune: Command
) -> None:
    outcome = divprune("tune", "--input", source, "--output", tmp_path / "tuned.json", *SHORT)
    assert re.search(r"then at most \d+ times pruned, about \d+ (s|min) at most", " ".join(outcome.stderr.split()))


def test_encoded_images_are_kept_on_disk(source: Path, tmp_path: Path, found: Tuned) -> None:
    folder = tmp_path / "encoded"
    options = TuneOptions(
        source,
        output=tmp_path / "tuned.json",
        methods=("divprune",),
        keep_ratios=(0.02, 0.05, 0.25),
        tolerance=0.3,
        cache_folder=folder,
    )
    first, second = tune(options), tune(replace(options, resume=False))
    assert first is not None
    assert second is not None
    assert first.rows[2]["retention"] == second.rows[2]["retention"] == found.rows[2]["retention"]
    assert first.evidence["num_encoder_passes"] == 20
    assert second.evidence["num_encoder_passes"] == 0
    assert len(list(folder.glob("*/*.safetensors"))) == 20
    with pytest.raises(ArgumentError, match="cache_folder"):
        tune(replace(options, cache_folder=source))


def test_descriptions_get_a_cider() -> None:
    pytest.importorskip("pycocoevalcap")
    right = ("a red circle and a blue square", "a green star")
    pairs = [ComparedAnswer("description", each, each, (each,)) for each in right]
    found = agreement([*pairs, ComparedAnswer("count", "3", "4", ("3",))])
    assert found["cider"]["unpruned"] == found["cider"]["pruned"]
    assert found["accuracy"]["num_questions"] == 1
    worse = agreement([pairs[0], replace(pairs[1], pruned="a blue square")])
    assert worse["cider"]["difference"]["value"] < 0
    assert "accuracy" not in worse
    assert "cider" not in agreement(pairs[:1]), "of one caption, words have no weights"
