"""The model that lmms-eval asks says what a model pruned by hand says, for families as their checkpoints come."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import DivPrune, prune
from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.models.chat import DivPruneChat
from divprune.lmms_eval_plugin.models.simple import DivPruneSimple
from divprune.methods import FastV, Method
from tests.harness.asking import Document, chat, documents, pictures, simple
from tests.serving.writers import WRITERS

CLIPS = {"llava": False, "llava_next": False, "llava_next_video": True, "qwen2_5_vl": True, "internvl": True}
KEEP = 0.3


@pytest.fixture(scope="module", params=CLIPS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder)
    return request.param, folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    WRITERS["llava"](folder)
    return folder


def by_hand(
    folder: Path, asked: list[Document], keep_ratio: float | None, method: Method | None = None
) -> Iterator[str]:
    """Answers one by one, by transformers alone but for the pruning."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    for document in asked:
        inputs = processor(**arguments(processor, document), return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        if keep_ratio is None:
            sequences = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        else:
            with prune(model, method or DivPrune(), keep_ratio=keep_ratio):
                sequences = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        yield processor.batch_decode(sequences[:, length:], skip_special_tokens=True)[0].strip()


def arguments(processor: Any, document: Document) -> dict[str, Any]:
    clips = [medium for medium in document.media if isinstance(medium, str)]
    media = [{"type": "video" if medium in clips else "image"} for medium in document.media]
    message = {"role": "user", "content": [*media, {"type": "text", "text": document.words}]}
    found: dict[str, Any] = {"text": processor.apply_chat_template([message], add_generation_prompt=True)}
    if clips:
        with av.open(clips[0]) as container:
            frames = [numpy.asarray(frame.to_image()) for frame in container.decode(video=0)]
        facts = {"total_num_frames": 8, "fps": 4.0, "frames_indices": list(range(8)), "width": 64, "height": 64}
        found |= {"videos": [numpy.stack(frames)], "video_metadata": [facts], "do_sample_frames": False}
    elif document.media:
        found["images"] = list(document.media)
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(("kind", "ask"), [(DivPruneChat, chat), (DivPruneSimple, simple)], ids=["chat", "simple"])
def test_answers_equal_those_of_a_model_pruned_by_hand(
    kind: Any, ask: Any, batch_size: int, family: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = family
    asked = documents(tmp_path, CLIPS[name])
    expected, unpruned = (list(by_hand(folder, asked, share)) for share in (KEEP, None))
    assert [a == b for a, b in zip(expected, unpruned, strict=True)] == [not each.media for each in asked]
    model = kind(pretrained=str(folder), keep_ratio=KEEP, batch_size=batch_size, device="cpu")
    assert ask(model, asked) == expected
    measured = model.take_measurements()
    kept, seen = (sum(one.num_kept for one in measured), sum(one.num_visual_tokens for one in measured))
    assert kept == pytest.approx(KEEP * seen, abs=sum(len(each.media) for each in asked))
    model.set_pruning("unpruned")
    assert ask(model, asked) == unpruned
    model.set_pruning("divprune", keep_ratio=KEEP)
    assert ask(model, asked) == expected


def test_media_take_the_places_that_words_name(llava: Path) -> None:
    media = tuple(pictures(2))
    before, named = Document("word5 word6", media), Document("word5 <image> word6 <image>", media)
    model = DivPruneSimple(pretrained=str(llava), keep_ratio=KEEP, device="cpu")
    answers = simple(model, [before, named])
    assert answers[0] != answers[1]
    assert answers[0] == simple(model, [Document("<image> <image> word5 word6", media)])[0]


@pytest.mark.parametrize(("kind", "ask"), [(DivPruneChat, chat), (DivPruneSimple, simple)], ids=["chat", "simple"])
def test_frames_are_pictures_for_a_model_of_pictures(kind: Any, ask: Any, llava: Path, tmp_path: Path) -> None:
    clip = documents(tmp_path, with_clip=True)[-1]
    with av.open(clip.media[0]) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    model = kind(pretrained=str(llava), keep_ratio=KEEP, num_frames=4, device="cpu")
    assert ask(model, [clip]) == list(by_hand(llava, [Document(clip.words, tuple(frames[1::2]))], KEEP))
    assert [one.num_items for one in model.take_measurements()] == [4]


def test_an_answer_ends_where_the_task_says(llava: Path) -> None:
    asked = [Document("word5 word6", tuple(pictures(1)))]
    model = DivPruneChat(pretrained=str(llava), keep_ratio=KEEP, device="cpu")
    (whole,) = chat(model, asked)
    words = whole.split()
    assert len(set(words)) > 1
    end = next(word for word in words if word != words[0])
    assert chat(model, asked, until=[end]) == [whole.split(end)[0].strip()]
    assert chat(model, asked, until=end) == [whole.split(end)[0].strip()]
    assert chat(model, asked, max_new_tokens=2) == [" ".join(words[:2])]
    assert chat(model, asked, num_beams=3, top_p=None, no_such_key=1, modalities=["image"])


def test_documents_that_cannot_be_asked_are_named(llava: Path, tmp_path: Path) -> None:
    model = DivPruneChat(pretrained=str(llava), keep_ratio=KEEP, batch_size=2, device="cpu")
    good = Document("word5", tuple(pictures(1)))
    with pytest.raises(EvaluationError, match=r"document 1 of made_up: .*<image>"):
        chat(model, [good, Document("word6 <image>", tuple(pictures(1)))])
    missing = str(tmp_path / "missing.mp4")
    with pytest.raises(EvaluationError, match=r"document 1 of made_up: .*missing\.mp4"):
        chat(model, [good, Document("word6", (missing,))])
    with pytest.raises(EvaluationError, match="must be images or paths"):
        simple(DivPruneSimple(pretrained=str(llava), device="cpu", keep_ratio=KEEP), [Document("word6", (3,))])
    assert len(chat(model, [good])) == 1


def test_half_a_batch_is_tried_where_memory_is_short(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Document(f"word{number}", (picture,)) for number, picture in enumerate(pictures(5))]
    model = DivPruneChat(pretrained=str(llava), keep_ratio=KEEP, batch_size="auto", device="cpu")
    expected = chat(model, asked)
    assert [one.num_prompts for one in model.take_measurements()] == [5]
    original = model.loaded.model.generate

    def small(fits: int) -> Any:
        def generate(**inputs: Any) -> Any:
            if len(inputs["input_ids"]) > fits:
                raise torch.OutOfMemoryError
            return original(**inputs)

        return generate

    for fits, counts in ((2, [1, 2, 2]), (1, [1] * 5)):
        monkeypatch.setattr(model.loaded.model, "generate", small(fits))
        model.batch_size = 16
        assert chat(model, asked) == expected
        assert sorted(one.num_prompts for one in model.take_measurements()) == counts
    monkeypatch.setattr(model.loaded.model, "generate", small(0))
    with pytest.raises(torch.OutOfMemoryError):
        chat(model, asked)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"keep_ration": 0.1}, "did you mean 'keep_ratio'"),
        ({"keep_ratio": 0}, "keep_ratio"),
        ({"keep_ratio": float("nan")}, "keep_ratio"),
        ({"keep_ratio": 0.1, "num_keep": 3}, "keep_ratio"),
        ({"method": "unpruned", "keep_ratio": 0.1}, "leave out keep_ratio"),
        ({"method": "divprunes", "keep_ratio": 0.1}, "did you mean"),
        ({"method": "random", "keep_ratio": 0.1, "layer": 2}, "no such parameter"),
        ({"keep_ratio": 0.1, "batch_size": 0}, "at least 1"),
        ({"keep_ratio": 0.1, "order": "reversed"}, "order must be one of"),
        ({"keep_ratio": 0.1, "scope": "tile"}, "scope must be 'item', 'frame' or 'sample' for 'llava'"),
        ({"keep_ratio": 0.1, "revision": "main"}, "no revision"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given: dict[str, Any], reason: str, llava: Path) -> None:
    from divprune.errors import DivpruneError

    with pytest.raises(DivpruneError, match=reason):
        DivPruneChat(pretrained=str(llava), device="cpu", **given)


def test_a_layer_takes_the_place_of_the_methods_own(llava: Path) -> None:
    asked = [Document("word5 word6", tuple(pictures(1))), Document("word7", tuple(pictures(2)))]
    model = DivPruneChat(pretrained=str(llava), method="fastv", layer=1, keep_ratio=0.1, device="cpu")
    assert chat(model, asked) == list(by_hand(llava, asked, 0.1, FastV(layer=1)))


def test_scope_and_newlines_are_those_of_prune(tmp_path: Path) -> None:
    WRITERS["llava_next"](tmp_path)
    asked = documents(tmp_path, with_clip=False)[:1]
    settings: dict[str, Any] = {"num_keep": 3, "scope": "tile", "newlines": "keep"}
    model = DivPruneChat(pretrained=str(tmp_path), device="cpu", **settings)
    answers = chat(model, asked)
    (measured,) = model.take_measurements()
    assert measured.num_kept > 3
    model.set_pruning("divprune", **settings)
    assert chat(model, asked) == answers
    assert [one.num_kept for one in model.take_measurements()] == [measured.num_kept]


def test_random_tokens_are_drawn_by_document_whatever_the_batch(llava: Path) -> None:
    (picture,) = pictures(1)
    asked = [Document("word5 word6", (picture,))] * 6
    models = [
        DivPruneChat(pretrained=str(llava), method=method, keep_ratio=0.1, batch_size=size, device="cpu")
        for method, size in (("random:seed=3", 1), ("random:seed=3", 4), ("random:seed=4", 4))
    ]
    one, four, other = [chat(model, asked) for model in models]
    assert one == four
    assert one != other
    assert len(set(one)) > 1, "each document has its own draw"
