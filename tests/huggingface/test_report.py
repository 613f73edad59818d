"""What a call reports: items, masks, and where the kept tokens sit in the picture."""

import dataclasses
import functools
import operator
import re

import pytest
import torch

from divprune import DivPrune, RandomTokens, UniformGrid, prune
from divprune.budget import budget
from divprune.errors import PruningError
from divprune.huggingface.families.token_layout import Layout, grid_layout
from divprune.huggingface.model_inputs import CACHE, cache_in
from divprune.selection.reference import reference_distances, reference_select
from tests.support.float64 import is_rounding
from tests.support.models.every_family import CASES, IMAGE, features, make_inputs
from tests.support.reports import pruned

ROWS = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12]]


@pytest.mark.parametrize("name", CASES)
def test_items_report_the_reference_picks(name: str) -> None:
    model, inputs, report = pruned(name, ROWS)
    visual_tokens = features(CASES[name], model, "image", inputs)
    assert [item.row for item in report.items] == [0, 1, 1]
    for item, tokens in zip(report.items, visual_tokens, strict=True):
        picks = reference_select(tokens, budget(len(tokens), keep_ratio=0.3))
        assert (item.modality, item.num_visual_tokens, item.num_kept) == ("image", len(tokens), len(picks))
        assert item.selection_order.tolist() == picks.tolist()
        assert item.kept_indices.tolist() == sorted(picks.tolist())
        distances = reference_distances(tokens[picks]).fill_diagonal_(torch.inf)
        assert item.max_min_distance == pytest.approx(float(distances.min()), abs=1e-5)
        assert item.selection_seconds > 0
        assert item.encoding_seconds > 0
    assert report.num_visual_tokens == sum(map(len, visual_tokens))
    assert report.encoding_seconds == pytest.approx(sum(item.encoding_seconds for item in report.items))


def test_num_keep_beyond_the_tokens_keeps_all() -> None:
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, ROWS)
    with prune(model, DivPrune(), num_keep=10_000) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    assert pruning.last.num_kept == pruning.last.num_visual_tokens


def test_sample_scope_shares_one_budget_over_a_row() -> None:
    model, inputs, report = pruned("llava_next", ROWS, scope="sample")
    tokens = features(CASES["llava_next"], model, "image", inputs)
    both = torch.cat(tokens[1:])
    picks = reference_select(both, budget(len(both), keep_ratio=0.3))
    first, second = report.items[1:]
    assert first.num_kept + second.num_kept == len(picks)
    assert first.selection_order.tolist() == [p for p in picks.tolist() if p < len(tokens[1])]
    assert second.selection_order.tolist() == [p - len(tokens[1]) for p in picks.tolist() if p >= len(tokens[1])]


def test_sample_scope_may_leave_an_item_without_tokens() -> None:
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, ROWS)
    for beams in (1, 3):
        with prune(model, DivPrune(), num_keep=1, scope="sample") as pruning:
            output = model.generate(**inputs, max_new_tokens=3, num_beams=beams)
        assert sorted(item.num_kept for item in pruning.last.items) == [0, 1, 1]
        assert output.shape[1] == inputs["input_ids"].shape[1] + 3


@pytest.mark.parametrize("name", ["llava_next_video", "qwen2_5_vl"])
def test_frame_scope_gives_every_frame_its_budget(name: str) -> None:
    model, inputs, report = pruned(name, [[1, "video", 5, 6], [1, 7, "image", 8]], scope="frame", ratio=0.25)
    video = features(CASES[name], model, "video", inputs)[0]
    frames = int(inputs["video_grid_thw"][0, 0]) if name == "qwen2_5_vl" else inputs["pixel_values_videos"].shape[1]
    per_frame = len(video) // frames
    picks = [
        (reference_select(video[start : start + per_frame], budget(per_frame, keep_ratio=0.25)) + start).tolist()
        for start in range(0, len(video), per_frame)
    ]
    assert report.items[0].selection_order.tolist() == functools.reduce(operator.iadd, picks, [])
    step = 2 if name == "qwen2_5_vl" else 1
    assert [box.frame for box in report.items[0].boxes()] == [step * f for f in range(frames) for _ in picks[0]]


def test_items_are_in_prompt_order_whatever_their_kind() -> None:
    _, _, report = pruned("qwen2_5_vl", [[1, "video", 5, "image", 6], [1, "image", 7, "video", 8]])
    assert [(item.row, item.modality) for item in report.items] == [
        (0, "video"),
        (0, "image"),
        (1, "image"),
        (1, "video"),
    ]


def test_random_tokens_differ_between_items_and_agree_between_calls() -> None:
    _, _, report = pruned("llava", ROWS, method=RandomTokens(seed=1))
    _, _, again = pruned("llava", ROWS, method=RandomTokens(seed=1))
    kept = [item.kept_indices.tolist() for item in report.items]
    assert kept == [item.kept_indices.tolist() for item in again.items]
    assert kept[0] != kept[1]


def test_uniform_grid_spreads_over_the_picture() -> None:
    _, _, report = pruned("llava", ROWS, method=UniformGrid(), ratio=9 / 36)
    boxes = report.items[0].boxes(image_size=(60, 60))
    assert len({box.left for box in boxes}) == len({box.top for box in boxes}) == 3


def test_llava_boxes_tile_the_cropped_square() -> None:
    _, _, report = pruned("llava", ROWS, ratio=1.0)
    boxes = report.items[0].boxes(image_size=(200, 100))
    # A centre crop of a 200 x 100 picture shows its middle 100 x 100.
    assert boxes[0] == pytest.approx((0, 50, 0, 50 + 100 / 6, 100 / 6))
    assert boxes[-1] == pytest.approx((0, 150 - 100 / 6, 100 - 100 / 6, 150, 100))
    assert sum((b.right - b.left) * (b.bottom - b.top) for b in boxes) == pytest.approx(100 * 100)
    processed = report.items[0].boxes()
    assert processed[1] == pytest.approx((0, 7, 0, 14, 7))


class PaddingProcessor:
    class image_processor:
        do_pad = True


class StretchingProcessor:
    class image_processor:
        do_center_crop = False


def test_the_processor_tells_how_the_picture_was_fitted() -> None:
    _, _, report = pruned("llava", ROWS, ratio=1.0)
    padded = report.items[0].boxes((200, 100), PaddingProcessor())
    # Padded to 200 x 200, 50 rows above and below: the first row of patches shows nothing of the picture.
    assert padded[0].top == padded[0].bottom == 0
    assert padded[-1].right == 200
    assert padded[-1].bottom == 100
    stretched = report.items[0].boxes((200, 100), StretchingProcessor())
    assert stretched[-1] == pytest.approx((0, 200 * 5 / 6, 100 * 5 / 6, 200, 100))


def test_anyres_boxes_come_from_the_picture_itself() -> None:
    _model, inputs, report = pruned("llava_next", [[1, "image", 5]], ratio=1.0)
    height, width = inputs["image_sizes"][0].tolist()
    boxes = report.items[0].boxes()
    base, tiles = boxes[:16], boxes[16:]
    assert base[0] == pytest.approx((0, 0, 0, width / 4, height / 4))
    newlines = [index for index, box in enumerate(tiles) if box is None]
    columns = newlines[0]
    assert newlines == list(range(columns, len(tiles), columns + 1))
    placed = [box for box in tiles if box is not None]
    assert min(box.left for box in placed) == 0
    assert max(box.right for box in placed) == width
    assert min(box.top for box in placed) == 0
    assert max(box.bottom for box in placed) == height
    assert sum((b.right - b.left) * (b.bottom - b.top) for b in placed) == pytest.approx(width * height, rel=0.05)


def test_anyres_boxes_point_at_what_the_patch_shows() -> None:
    """A bright spot in the picture lights the patch whose box holds it, through the real image processor."""
    from PIL import Image
    from transformers import LlavaNextImageProcessorPil

    model = CASES["llava_next"].build()
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=model.config.image_grid_pinpoints, do_normalize=False,
    )  # fmt: skip
    picture = Image.new("RGB", (53, 97))
    picture.paste((255, 255, 255), (30, 60, 36, 66))
    processed = processor(picture, return_tensors="pt")
    tiles = processed["pixel_values"][0, 1:]
    rows, columns = 2, len(tiles) // 2
    canvas = tiles.mean(1).reshape(rows, columns, 28, 28).permute(0, 2, 1, 3).reshape(28 * rows, 28 * columns)
    light = canvas.reshape(4 * rows, 7, 4 * columns, 7).mean((1, 3))
    brightest = divmod(int(light.argmax()), 4 * columns)
    inputs = {"pixel_values": processed["pixel_values"], "image_sizes": processed["image_sizes"]}
    count = len(features(CASES["llava_next"], model, "image", inputs)[0])
    ids = torch.tensor([[1, *[IMAGE] * count, 5]])
    with prune(model, DivPrune(), keep_ratio=1.0) as pruning:
        model.generate(input_ids=ids, **inputs, max_new_tokens=1)
    boxes = pruning.last.items[0].boxes()[16:]
    holding = [box for box in boxes if box and box.left <= 33 <= box.right and box.top <= 63 <= box.bottom]
    assert holding
    # The same patch, by its place in the padded canvas: the picture is 31 of 56 pixels wide there, 12 pixels in.
    scale = 56 / 97
    left = brightest[1] * 7 - (28 * columns - 31) // 2
    assert any(box.left == pytest.approx(max(left, 0) * 53 / 31, abs=1.0) for box in holding), (holding, left, scale)
    assert any(box.top == pytest.approx(brightest[0] * 7 * 97 / 56, abs=1.0) for box in holding)


def test_qwen_boxes_follow_the_merged_grid() -> None:
    _, inputs, report = pruned("qwen2_5_vl", [[1, "image", 5]], ratio=1.0)
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    boxes = report.items[0].boxes(image_size=(600, 400))
    assert len(boxes) == rows * columns // 4
    assert boxes[0] == pytest.approx((0, 0, 0, 600 / (columns // 2), 400 / (rows // 2)))
    assert boxes[-1].right == 600
    assert boxes[-1].bottom == 400


def test_unknown_layouts_have_no_boxes_and_no_frames() -> None:
    model, inputs, _ = pruned("llava", ROWS)
    encoded = model.model.get_image_features(inputs["pixel_values"], return_dict=True)
    others = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with prune(model, DivPrune(), keep_ratio=0.25) as pruning:
        model.generate(**others, mm_encoder_outputs={"image": encoded}, max_new_tokens=1)
        assert pruning.last.items[0].boxes() == [None] * pruning.last.items[0].num_kept
    with prune(model, DivPrune(), keep_ratio=0.25, scope="frame"), pytest.raises(ValueError, match="scope must be"):
        model.generate(**others, mm_encoder_outputs={"image": encoded}, max_new_tokens=1)


def test_boxes_are_clipped_to_the_picture() -> None:
    layout: Layout = grid_layout((1, 2, 2), (10, 10), "pad")
    boxes = layout.boxes(torch.arange(4), (20, 10), "stretch")
    assert all(0 <= b.left <= b.right <= 20 and 0 <= b.top <= b.bottom <= 10 for b in boxes if b)


@pytest.mark.parametrize(
    ("method", "order"), [("divprune", "sorted"), ("divprune", "selection"), ("fastv:layer=2", "sorted")]
)
def test_labels_are_shortened_and_logits_spread_by_the_original_prompt(method: str, order: str) -> None:
    model, rows = CASES["llava"].build(), [[1, 5, "image", 6, 7], [1, 9, 10, "image", 11]]
    inputs = make_inputs(CASES["llava"], model, rows)
    ids, length = inputs["input_ids"], inputs["input_ids"].shape[1]
    with prune(model, method, keep_ratio=0.3, order=order) as pruning, torch.no_grad():
        output = model(**inputs, labels=ids)
        report, logits = pruning.last, output.logits
        expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), report.shorten(ids)[:, 1:].flatten())
        assert torch.allclose(output.loss, expected, rtol=1e-6)
        spread = report.spread(logits)
        assert spread.shape == (2, length, logits.shape[-1])
        assert torch.equal(spread.isnan().all(dim=-1), ~report.keep_mask)
        # There and back: every kept token finds its own again.
        assert torch.equal(report.spread(report.shorten(ids), fill=-1)[report.keep_mask], ids[report.keep_mask])
        assert torch.equal(report.spread(logits.argmax(-1), fill=-1) == -1, ~report.keep_mask)
        for wanted in (torch.tensor([length - 1]), torch.tensor([-1]), torch.tensor([0, length - 1])):
            few = model(**inputs, logits_to_keep=wanted).logits
            assert is_rounding((few - spread[:, wanted % length]).abs().max())
        dropped = (~report.keep_mask).any(dim=0).nonzero()[0]
        with pytest.raises(PruningError, match=r"logits_to_keep must name tokens that stay in every row, got \["):
            model(**inputs, logits_to_keep=dropped)
    for wrong in (ids[:, 1:], ids[:1]):
        with pytest.raises(ValueError, match=r"per_token must be \(2, "):
            report.shorten(wrong)
    with pytest.raises(ValueError, match=r"per_kept_token must begin with \(2, "):
        report.spread(ids)


def test_rows_whose_tokens_stand_at_different_places_are_refused_by_name() -> None:
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, [[1, "image", 6, 7, 8, 9], [1, 6, 7, 8, "image", 9]])
    with prune(model, keep_ratio=0.3) as pruning:
        model(**inputs)
        places = pruning.last.keep_mask.cumsum(dim=-1)
        apart = (pruning.last.keep_mask.all(dim=0) & (places[0] != places[1])).nonzero()
        with pytest.raises(PruningError, match=r"logits_to_keep must be an integer, or name tokens with as many"):
            model(**inputs, logits_to_keep=apart[0])


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=2"])
def test_items_stay_with_the_prompt_while_its_cache_is_continued(method: str) -> None:
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, [[1, 5, "image", 6]])
    with prune(model, method, keep_ratio=0.3) as pruning, torch.no_grad():
        output = model(**inputs, use_cache=True)
        items, ids = pruning.last.items, output.logits[:, -1:].argmax(-1)
        for _ in range(3):
            output = model(input_ids=ids, **{CACHE: cache_in(output)})
            ids = output.logits[:, -1:].argmax(-1)
            assert [item.num_kept for item in pruning.last.items] == [item.num_kept for item in items]
        output = model.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True)
        ids = torch.cat([output.sequences, torch.tensor([[21, 22]])], dim=-1)
        more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        model.generate(**more, **{CACHE: cache_in(output)}, max_new_tokens=1)
        assert [item.num_kept for item in pruning.last.items] == [item.num_kept for item in items]
        model.generate(input_ids=torch.tensor([[1, 5, 6]]), max_new_tokens=1)
        assert pruning.last.items == ()


def test_a_report_is_said_in_a_line() -> None:
    _, _, report = pruned("llava", [[1, 5, "image", 6]])
    total, kept = report.num_visual_tokens, report.num_kept
    assert re.fullmatch(
        rf"{kept} of {total} tokens \({kept / total:.1%}\), selected in \d+\.\d ms, KV cache \S+ -> \S+ MiB",
        str(report),
    )
    assert str(dataclasses.replace(report, items=())).startswith("text alone, ")
