"""Training on videos: labels worked by hand, packed questions as single prompts, a loss that falls."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaNextVideoForConditionalGeneration

from divprune.embedded import VIDEO_KINDS, generated_video, video_questions
from divprune.embedded.vocabulary import VIDEO_WORDS, WORDS
from tools.embedded.labels import IGNORED
from tools.embedded.loop import Schedule, optimizers, train_step
from tools.embedded.model import build, configuration
from tools.embedded.packing import PackedBatch
from tools.embedded.processing import build_video_processor
from tools.embedded.tower_stage import draw_batch, patch_features
from tools.embedded.train import export
from tools.embedded.video_attention import ANSWER_LAYER, HEAD, SIGHT_LAYERS, answer_sight_loss, first_sight_loss
from tools.embedded.video_labels import TOKEN_LABELS, token_labels
from tools.embedded.video_model import (
    FRAME_TOKENS,
    VIDEO_TOKENS,
    build_video,
    pooled,
    video_configuration,
)
from tools.embedded.video_stage import VideoStage, kept_places, one_frame


def small_model(language_layers: int = 4) -> LlavaNextVideoForConditionalGeneration:
    sizes = {"width": 64, "tower_layers": 2, "language_layers": language_layers}
    return build_video(build(configuration(**sizes)), video_configuration(**sizes)).eval()


def test_labels_tell_what_an_object_has_done_so_far() -> None:
    # Test seed 0 (see test_video_questions): the white circle comes in frame 3 with its centre at (48, 98), row
    # 98 // 16 = 6 and column 48 // 16 = 3 of 8 x 8 tokens, the second to appear and the first circle, and moves 10
    # pixels right a frame. In frame 5 it is at (68, 98), column 4; the cyan circle has come by then, the third object.
    # That it moves shows two frames after it came; "right" is the second direction.
    labels = token_labels(generated_video(0)).unflatten(1, (8, 8, 8))
    assert labels.shape == (len(TOKEN_LABELS), 8, 8, 8)
    names = tuple(TOKEN_LABELS)
    assert set(labels[:, 2, 6, 3].tolist()) == {IGNORED}
    came = {
        "frame": 3,
        "arrival": 3,
        "rank": 2,
        "direction": IGNORED,
        "same_shape": 1,
        "total": 2,
        "color": 7,
        "first_column": 3,
        "first_row": 6,
    }
    assert dict(zip(names, labels[:, 3, 6, 3].tolist(), strict=True)) == came
    moved = came | {"frame": 5, "direction": 2, "same_shape": 2, "total": 3}
    assert dict(zip(names, labels[:, 5, 6, 4].tolist(), strict=True)) == moved
    # The green triangle came in frame 1 and stands: that shows in frame 3.
    assert [int(labels[names.index("direction"), frame, 2, 2]) for frame in (1, 2, 3, 4)] == [
        IGNORED,
        IGNORED,
        0,
        IGNORED,
    ]


def test_tokens_with_objects_are_read_first() -> None:
    labels = torch.full((2, len(TOKEN_LABELS), 6), IGNORED)
    labels[0, :, [1, 4]] = 0
    labels[1, :, [0, 2, 3, 5]] = 0
    kept = kept_places(labels, 3, seed=0)
    assert {1, 4} < set(kept[0].tolist())
    assert set(kept[1].tolist()) < {0, 2, 3, 5}
    assert kept.tolist() == [sorted(row) for row in kept.tolist()]
    assert kept_places(labels, 6, seed=0).tolist() == [list(range(6))] * 2


def attention_of(
    model: LlavaNextVideoForConditionalGeneration, layer: int, states: tuple[torch.Tensor, ...], batch: PackedBatch
) -> torch.Tensor:
    """(L, L) that transformers' own eager attention gives in head HEAD of a layer, for the batch's only row."""
    language = model.model.language_model
    language.layers[layer].self_attn.config._attn_implementation = "eager"
    mask = torch.zeros(batch.attention_mask.shape, dtype=torch.float64).masked_fill(~batch.attention_mask, -1e300)
    _, attention = language.layers[layer].self_attn(
        language.layers[layer].input_layernorm(states[layer]),
        position_embeddings=language.rotary_emb(states[layer], batch.position_ids),
        attention_mask=mask,
    )
    return attention[0, HEAD]


@torch.no_grad()
def test_the_losses_on_attention_are_of_the_model_s_own_attention() -> None:
    model = small_model().double()
    stage = VideoStage(model, batch_size=1)
    video = generated_video(0)
    rows, labels = [video_questions(video)], token_labels(video)[None]
    features = pooled(patch_features(model, draw_batch(list(video.scenes)).double())).flatten(0, 1)[None]
    batch, _, states = stage.read(features, rows)
    prefix, names = batch.num_prefix, list(TOKEN_LABELS)
    visual = range(prefix - VIDEO_TOKENS, prefix)
    color, frame, arrival = (labels[0, names.index(name)].tolist() for name in ("color", "frame", "arrival"))
    means = []
    for layer in SIGHT_LAYERS:
        seen = attention_of(model, layer, states, batch)[visual][:, visual]
        losses = [
            -seen[query, [key for key in range(query + 1) if color[key] == color[query] and frame[key] == arrival[key]]]
            .sum()
            .log()
            for query in range(VIDEO_TOKENS)
            if frame[query] >= 0
        ]
        means.append(torch.stack(losses).mean())
    # The heads' own softmax is in float32.
    found = first_sight_loss(model, states, batch, labels)
    torch.testing.assert_close(found, torch.stack(means).mean().to(found), rtol=1e-4, atol=1e-4)

    # Of the answers in the order asked: yes (cyan), no (none), 2 (none), green, right (cyan, once it is seen moving),
    # cyan; each begins behind the colon that follows "assistant".
    seen = attention_of(model, ANSWER_LAYER, states, batch)
    starts = [place - 1 for place in (batch.input_ids[0] == VIDEO_WORDS.index(":")).nonzero()[:, 0].tolist()][1:]
    losses = []
    for start, about in zip(starts, (4, None, None, 3, 4, 4), strict=True):
        if about is not None:
            moves = start == starts[4]
            told = [
                token
                for place, token in enumerate(visual)
                if color[place] == about and (not moves or labels[0, names.index("direction"), place] >= 0)
            ]
            losses.append(-seen[start + 1, told].sum().log())
    found = answer_sight_loss(model, states, batch, labels, rows)
    torch.testing.assert_close(found, torch.stack(losses).mean().to(found), rtol=1e-4, atol=1e-4)


def test_the_video_model_knows_what_the_image_model_knew() -> None:
    sizes = {"width": 64, "tower_layers": 2, "language_layers": 1}
    image_model = build(configuration(**sizes))
    model = build_video(image_model, video_configuration(**sizes))
    rows = model.get_input_embeddings().weight
    assert rows.shape[0] == len(VIDEO_WORDS)
    assert torch.equal(rows[: len(WORDS)], image_model.get_input_embeddings().weight)
    assert torch.equal(model.lm_head.weight[: len(WORDS)], image_model.lm_head.weight)
    before, after = image_model.model.language_model.layers[0], model.model.language_model.layers[0]
    assert torch.equal(after.mlp.up_proj.weight, before.mlp.up_proj.weight)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(small_model(), build_video_processor(), folder)
    return folder


@torch.no_grad()
def test_packed_questions_are_read_like_single_prompts(exported: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float64).eval()
    processor = AutoProcessor.from_pretrained(exported)
    stage = VideoStage(model)
    video = generated_video(3)
    frames = pooled(patch_features(model, draw_batch(list(video.scenes)).double())).flatten(0, 1)[None]
    asked = video_questions(video)
    batch, logits, _ = stage.read(frames, [asked])
    for place, question in enumerate(asked):
        content = [{"type": "video"}, {"type": "text", "text": question.prompt}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        text = f"{prompt} {question.answer}</s>"
        inputs = processor(text=text, videos=[list(video.frames)], return_tensors="pt")
        inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
        assert int((inputs["input_ids"] == VIDEO_WORDS.index("<video>")).sum()) == VIDEO_TOKENS
        alone = model(**inputs).logits[0, batch.num_prefix :]
        mine = logits[0][batch.question_index[0, batch.num_prefix :] == place]
        # The processor's pixels are in float32.
        torch.testing.assert_close(mine, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kept_tokens", [80, VIDEO_TOKENS])
def test_loss_falls_on_a_handful_of_videos(kept_tokens: int) -> None:
    stage = VideoStage(small_model(), batch_size=2, pool_size=2, kept_tokens=kept_tokens)
    schedule = Schedule(num_steps=30, warmup_steps=3)
    chosen = optimizers(stage.trained, schedule)
    losses = [train_step(stage, chosen, schedule, 0) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    assert stage.model.model.vision_tower.embeddings.patch_embedding.weight.grad is None


def test_scores_are_fractions_of_every_kind() -> None:
    scores = VideoStage(small_model()).scores(number=8, chunk=4)
    assert {*VIDEO_KINDS, *(f"one_frame_{kind}" for kind in VIDEO_KINDS), "token_frame"} <= scores.keys()
    assert all(0 <= score <= 1 for score in scores.values())


def test_one_frame_stands_for_all() -> None:
    features = torch.arange(VIDEO_TOKENS).view(1, VIDEO_TOKENS, 1)
    assert torch.equal(one_frame(features)[0, :, 0], torch.arange(4 * FRAME_TOKENS, 5 * FRAME_TOKENS).repeat(8))


def test_frames_are_pooled_as_the_model_pools_them() -> None:
    model, pixels = small_model(1), draw_batch(list(generated_video(1).scenes))
    with torch.no_grad():
        expected = model.model.vision_resampler(patch_features(model, pixels))
        assert expected.shape[1] == FRAME_TOKENS
        torch.testing.assert_close(pooled(patch_features(model, pixels)), expected)
