"""What is drawn is what a pruned call keeps, whoever else asks at the same time."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from divprune.checkpoints import LoadedModel, load_model
from divprune.embedded import generated_video
from divprune.embedded.examples import Example
from divprune.errors import ArgumentError, DivpruneError, PromptError, SelectionError
from divprune.huggingface import prune
from divprune.media import Medium
from divprune.methods import get_method
from divprune.prompting import build_inputs
from divprune.web_demo.options import RATIO_STEPS
from divprune.web_demo.overlay_data import on_step
from divprune.web_demo.session import Session
from divprune.web_demo.shared_model import SharedModel
from divprune.web_demo.usable_methods import usable_methods
from tests.support import checkpoint_writers

RATIOS = (1 / RATIO_STEPS, 0.098, 0.61, 1.0)


def by_prune(loaded: LoadedModel, example: Example, spec: str, keep_ratio: float) -> list[int]:
    """The reference: what a pruned call reports."""
    inputs = build_inputs(loaded, example.media, example.prompt)
    with prune(loaded.model, spec, keep_ratio=keep_ratio) as pruning:
        loaded.model.generate(**inputs, max_new_tokens=1)
    assert pruning.last is not None
    (item,) = pruning.last.items
    return item.selection_order.tolist()


def drawn(data: dict[str, Any], keep_ratio: float) -> list[int]:
    """What the script shows with the slider at a keep ratio."""
    (item,) = data["items"]
    order: list[int] = item["order"]
    if item["counts"] is None:
        return order
    return order[: item["counts"][round(keep_ratio * data["steps"]) - 1]]


def test_every_method_is_drawn_as_it_prunes(session: Session, loaded: LoadedModel) -> None:
    names = usable_methods(loaded)
    assert {"divprune", "random", "uniform", "visionzip", "fastv", "cls-attention"} <= set(names)
    assert not {"vtw", "evs", "vidcom2"} & set(names)
    for name in names:
        for keep_ratio in RATIOS:
            expected = by_prune(loaded, session.example, name, keep_ratio)
            assert drawn(session.overlay(name, keep_ratio), keep_ratio) == expected, (name, keep_ratio)


def test_nested_picks_are_selected_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    select = SharedModel.picks

    def counted(shared: SharedModel, example: Example, inputs: Any, config: Any, memory: Any) -> Any:
        calls.append(config.keep_ratio)
        return select(shared, example, inputs, config, memory)

    monkeypatch.setattr(SharedModel, "picks", counted)
    for keep_ratio in RATIOS:
        assert session.overlay("divprune", keep_ratio)["nested"]
    assert calls == [1.0]
    for keep_ratio in RATIOS:
        assert not session.overlay("uniform", keep_ratio)["nested"]
    assert calls == [1.0, *RATIOS]


def test_the_encoder_runs_once_for_an_image(session: Session) -> None:
    for spec in ("divprune", "random", "norm", "uniform"):
        session.overlay(spec, 0.3)
    session.ask("What color is the star?")
    session.overlay("divprune", 0.3)
    assert session._memory.num_passes == 1


def test_methods_that_read_the_question_choose_anew(session: Session, loaded: LoadedModel) -> None:
    first = drawn(session.overlay("mmtok", 0.1), 0.1)
    session.ask("Is there a yellow triangle in the picture?")
    assert drawn(session.overlay("mmtok", 0.1), 0.1) == by_prune(loaded, session.example, "mmtok", 0.1) != first


def test_boxes_are_those_of_the_report(session: Session, loaded: LoadedModel) -> None:
    (item,) = session.overlay("divprune", 0.098)["items"]
    inputs = build_inputs(loaded, session.example.media, session.example.prompt)
    with prune(loaded.model, "divprune", keep_ratio=0.098) as pruning:
        loaded.model.generate(**inputs, max_new_tokens=1)
    assert pruning.last is not None
    (reported,) = pruning.last.items
    boxes = reported.boxes(session.example.media[0].frames[0].size, loaded.processor)
    for index, box in zip(reported.kept_indices.tolist(), boxes, strict=True):
        assert box is not None
        frame, left, top, width, height = item["boxes"][index]
        assert (frame, left, top) == (box.frame, round(box.left, 2), round(box.top, 2))
        assert (width, height) == (round(box.right - box.left, 2), round(box.bottom - box.top, 2))


def test_answers_and_numbers_are_those_of_pruned_calls(session: Session, loaded: LoadedModel) -> None:
    unpruned, (first, second) = session.answers(("divprune", "random"), 0.098)
    assert (unpruned.num_kept, first.num_kept, second.num_kept) == (256, 25, 25)
    inputs = build_inputs(loaded, session.example.media, session.example.prompt)
    with prune(loaded.model, "divprune", keep_ratio=0.098) as pruning:
        loaded.model.generate(**inputs, max_new_tokens=8)
    report = pruning.last
    assert report is not None
    assert first.kept_indices == (tuple(report.items[0].kept_indices.tolist()),)
    assert (first.kv_cache_bytes, unpruned.kv_cache_bytes) == (report.kv_cache_bytes, report.kv_cache_bytes_unpruned)
    assert first.kept_indices != second.kept_indices
    assert unpruned.text == "6"
    for answer in (unpruned, first, second):
        assert answer.prefill is not None
        assert answer.prefill.median > 0


def test_a_failure_leaves_the_model_as_it_was(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("divprune.huggingface.selecting._select", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.answers(("divprune",), 0.1)
    # And the lock is free.
    assert session.answers(("divprune",), 0.1, measure=False)[1][0].num_kept == 26


def test_typed_ratios_go_to_the_nearest_step_of_the_slider() -> None:
    assert [on_step(ratio) for ratio in (0.0, 0.098, 0.0975, 0.33333, 1.0, 7.0)] == [
        0.002,
        0.098,
        0.098,
        0.334,
        1.0,
        1.0,
    ]
    assert all(on_step(step / RATIO_STEPS) == step / RATIO_STEPS for step in range(1, RATIO_STEPS + 1))


def test_the_frames_of_a_video_are_drawn_as_it_is_pruned() -> None:
    loaded = load_model("embedded-video", torch.device("cpu"), "float32")
    shown = generated_video(0, "test")
    medium = Medium("video 0", "video", tuple(shown.frames), tuple(range(len(shown.frames))), 2.0, len(shown.frames))
    example = Example((medium,), "What moves?")
    session = Session(SharedModel(loaded, 4), example)
    for spec, is_nested in (("divprune", True), ("evs", True), ("vidcom2", False)):
        data = session.overlay(spec, 0.25)
        (item,) = data["items"]
        assert data["nested"] == is_nested
        assert [frame["title"] for frame in item["frames"]] == [
            f"video 0, frame {number} of 8" for number in range(1, 9)
        ]
        assert {box[0] for box in item["boxes"]} == set(range(8))
        assert drawn(data, 0.25) == by_prune(loaded, example, spec, 0.25)
    with pytest.raises(SelectionError, match="is for images"):
        session.overlay("globalcom2", 0.25)


@pytest.mark.parametrize("write", [checkpoint_writers.write_llava_next_video, checkpoint_writers.write_qwen2_5_vl])
def test_other_families_by_their_folder(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Tiles with image newline tokens, and tokens merged from several patches; the image is not square."""
    pytest.importorskip("torchvision")
    loaded = load_model(str(write(tmp_path / "model")), torch.device("cpu"), "float32")
    image = Image.radial_gradient("L").resize((150, 90)).convert("RGB")
    example = Example((Medium("gradient", "image", (image,)),), "word1 word2")
    session = Session(SharedModel(loaded, 4), example)
    names = usable_methods(loaded)
    assert {"divprune", "random", "uniform"} <= set(names)
    compared = set()
    for name in (*names, "fastv:layer=1"):
        if get_method(name).modalities == {"video"}:
            continue
        for keep_ratio in (0.098, 0.5, 1.0):
            try:
                expected = by_prune(loaded, example, name, keep_ratio)
            except DivpruneError:
                with pytest.raises(DivpruneError):
                    session.overlay(name, keep_ratio)
                continue
            assert drawn(session.overlay(name, keep_ratio), keep_ratio) == expected, (name, keep_ratio)
            compared.add(name)
    assert {"divprune", "random", "uniform", "norm", "fastv:layer=1"} <= compared
    (item,) = session.overlay("divprune", 1.0)["items"]
    unplaced = sum(box is None for box in item["boxes"])
    assert (unplaced > 0) == (loaded.model.config.model_type == "llava_next_video")


def test_wrong_settings_are_told(session: Session) -> None:
    for spec in ("divprun", "random:seed=x", "vtw", "evs"):
        with pytest.raises(ValueError, match=r"divprune|seed|vtw|evs"):
            session.overlay(spec, 0.1)
    with pytest.raises(ArgumentError, match="ask something"):
        session.ask("  ")


def test_a_model_of_images_is_not_shown_videos(shared: SharedModel, examples: list[Example]) -> None:
    medium = replace(examples[0].media[0], kind="video")
    shared.loaded = replace(shared.loaded, processor=object())  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="reads images alone"):
        Session(shared, replace(examples[0], media=(medium,)))


def test_sessions_at_the_same_time_do_not_mix(shared: SharedModel, examples: list[Example]) -> None:
    """Each visitor has an image, a method and a keep ratio of its own; all work on one model at once."""
    settings = [
        (examples[number], spec, ratio) for number in range(4) for spec, ratio in (("divprune", 0.1), ("random", 0.3))
    ]
    alone = [seen_by(Session(shared, example), spec, ratio) for example, spec, ratio in settings]
    together: list[Any] = [None] * len(settings)
    barrier = threading.Barrier(len(settings))

    def visit(place: int) -> None:
        example, spec, ratio = settings[place]
        barrier.wait()
        together[place] = seen_by(Session(shared, example), spec, ratio)

    threads = [threading.Thread(target=visit, args=(place,)) for place in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def seen_by(session: Session, spec: str, ratio: float) -> tuple[Any, ...]:
    overlay = drawn(session.overlay(spec, ratio), ratio)
    unpruned, (pruned,) = session.answers((spec,), ratio, measure=False)
    assert sorted(overlay) == list(pruned.kept_indices[0])
    return overlay, unpruned.text, pruned.text, pruned.kv_cache_bytes
