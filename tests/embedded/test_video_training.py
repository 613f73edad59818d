"""Training on videos: labels worked by hand, packed questions as single prompts, a loss that falls."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaNextVideoForConditionalGeneration

from divprune.embedded import generated_video, questions, scene, video_questions
from divprune.embedded.vocabulary import VIDEO_WORDS, WORDS
from tools.embedded.labels import IGNORED
from tools.embedded.loop import Schedule, optimizers, train_step
from tools.embedded.model import build, configuration
from tools.embedded.processing import build_video_processor
from tools.embedded.tower_stage import draw_batch, patch_features
from tools.embedded.train import export
from tools.embedded.video_attention import HEAD, LAYER, first_sight_loss
from tools.embedded.video_labels import TOKEN_LABELS, token_labels
from tools.embedded.video_model import (
    FRAME_TOKENS,
    IMAGE_TOKENS,
    VIDEO_TOKENS,
    build_video,
    pooled,
    video_configuration,
)
from tools.embedded.video_stage import VideoStage, kept_places


def small_model(language_layers: int = 3) -> LlavaNextVideoForConditionalGeneration:
    sizes = {"width": 64, "tower_layers": 2, "language_layers": language_layers}
    return build_video(build(configuration(**sizes)), video_configuration(**sizes)).eval()


def test_labels_tell_what_an_object_has_done_so_far() -> None:
    # Test seed 0 (see test_video_questions): the yellow triangle comes in frame 3 and stays, centre at (88, 69): row
    # 69 // 16 = 4, column 88 // 16 = 5 of 8 x 8 tokens. It is the second to appear; with the red one it makes two
    # triangles, and four objects so far. That it stays shows two frames later.
    labels = token_labels(generated_video(0)).unflatten(1, (8, 8, 8))
    assert labels.shape == (len(TOKEN_LABELS), 8, 8, 8)
    names = tuple(TOKEN_LABELS)
    told = {frame: dict(zip(names, labels[:, frame, 4, 5].tolist(), strict=True)) for frame in (2, 3, 5)}
    assert set(told[2].values()) == {IGNORED}
    assert told[3] == {
        "frame": 3,
        "arrival": 3,
        "rank": 2,
        "direction": IGNORED,
        "same_shape": 2,
        "total": 4,
        "color": 2,
    }
    assert told[5] == told[3] | {"frame": 5, "direction": 0}
    # The cyan circle moves 4 pixels up a frame from (63, 55): in frame 2 it is at (63, 47), row 2, column 3. "up" is
    # the third direction. The green circle has come in this frame.
    assert dict(zip(names, labels[:, 2, 2, 3].tolist(), strict=True)) == {
        "frame": 2,
        "arrival": 0,
        "rank": 0,
        "direction": 3,
        "same_shape": 2,
        "total": 3,
        "color": 4,
    }


def test_tokens_with_objects_are_read_first() -> None:
    labels = torch.full((2, len(TOKEN_LABELS), 6), IGNORED)
    labels[0, :, [1, 4]] = 0
    labels[1, :, [0, 2, 3, 5]] = 0
    kept = kept_places(labels, 3, seed=0)
    assert {1, 4} < set(kept[0].tolist())
    assert set(kept[1].tolist()) < {0, 2, 3, 5}
    assert kept.tolist() == [sorted(row) for row in kept.tolist()]
    assert kept_places(labels, 6, seed=0).tolist() == [list(range(6))] * 2


@torch.no_grad()
def test_the_loss_on_attention_is_of_the_model_s_own_attention() -> None:
    model = small_model().double()
    stage = VideoStage(model, videos=1, images=1)
    shown = stage.video_material(range(1))
    batch, _, states = stage.read("video", shown.features.double(), shown.rows)
    found = first_sight_loss(model, states[LAYER], batch, shown.labels)
    prefix = batch.num_prefix
    layer = model.model.language_model.layers[LAYER]
    layer.self_attn.config._attn_implementation = "eager"
    rotary = model.model.language_model.rotary_emb(states[LAYER], batch.position_ids)
    mask = torch.zeros(batch.attention_mask.shape, dtype=torch.float64).masked_fill(~batch.attention_mask, -1e300)
    _, attention = layer.self_attn(
        layer.input_layernorm(states[LAYER]), position_embeddings=rotary, attention_mask=mask
    )
    seen = attention[0, HEAD, prefix - VIDEO_TOKENS : prefix, prefix - VIDEO_TOKENS : prefix]
    losses = []
    names = list(TOKEN_LABELS)
    color, frame, arrival = (shown.labels[0, names.index(name)].tolist() for name in ("color", "frame", "arrival"))
    for query in range(VIDEO_TOKENS):
        if frame[query] >= 0:
            first = [key for key in range(query + 1) if color[key] == color[query] and frame[key] == arrival[key] >= 0]
            losses.append(-seen[query, first].sum().log())
    # The head's own softmax is in float32.
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
    stage = VideoStage(model, videos=1, images=1)
    video, image = generated_video(3), scene(3)
    frames = pooled(patch_features(model, draw_batch(list(video.scenes)).double())).flatten(0, 1)[None]
    patches = patch_features(model, draw_batch([image]).double())
    cases = [
        ("video", frames, video_questions(video), {"videos": [list(video.frames)]}, VIDEO_TOKENS),
        ("image", patches, questions(image), {"images": image.image}, IMAGE_TOKENS),
    ]
    for modality, features, asked, media, num_tokens in cases:
        batch, logits, _ = stage.read(modality, features, [asked])
        for place, question in enumerate(asked):
            content = [{"type": modality}, {"type": "text", "text": question.prompt}]
            prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(text=f"{prompt} {question.answer}</s>", **media, return_tensors="pt")
            inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
            placeholder = VIDEO_WORDS.index(f"<{modality}>")
            assert int((inputs["input_ids"] == placeholder).sum()) == num_tokens
            alone = model(**inputs).logits[0, batch.num_prefix :]
            mine = logits[0][batch.question_index[0, batch.num_prefix :] == place]
            # The processor's pixels are in float32.
            torch.testing.assert_close(mine, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kept_tokens", [144, VIDEO_TOKENS])
def test_loss_falls_on_a_handful_of_videos(kept_tokens: int) -> None:
    stage = VideoStage(small_model(), videos=2, images=1, pool_size=2, kept_tokens=kept_tokens)
    schedule = Schedule(num_steps=30, warmup_steps=3)
    chosen = optimizers(stage.trained, schedule)
    losses = [train_step(stage, chosen, schedule, 0) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    assert stage.model.model.vision_tower.embeddings.patch_embedding.weight.grad is None


def test_scores_are_fractions_of_every_kind() -> None:
    scores = VideoStage(small_model(), pool_size=4).scores(number=8, chunk=4)
    assert {"video_order", "video_motion", "count", "position", "token_frame"} <= scores.keys()
    assert all(0 <= score <= 1 for score in scores.values())


def test_frames_are_pooled_as_the_model_pools_them() -> None:
    model, pixels = small_model(1), draw_batch(list(generated_video(1).scenes))
    with torch.no_grad():
        expected = model.model.vision_resampler(patch_features(model, pixels))
        assert expected.shape[1] == FRAME_TOKENS
        torch.testing.assert_close(pooled(patch_features(model, pixels)), expected)
