"""CDPruner's relevance by CLIP's own text tower, on checkpoints in the real on-disk layout."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModel,
    PreTrainedModel,
)

from divprune import attach, prune
from divprune.errors import CheckpointError, PruningError, UnsupportedModelError
from divprune.huggingface.encoding.clip_space import clip_space
from divprune.huggingface.families.vision_towers import tower_of
from divprune.methods import CDPruner, ItemContext
from tests.support import checkpoint_writers
from tests.support.models.every_family import CASES, make_inputs


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_writers.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    return checkpoint_writers.write_llava_with_tower(tmp_path_factory.mktemp("llava"), clip)


@pytest.fixture
def model(llava: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(llava, dtype=torch.float32).eval()


def inputs_of(folder: Path, questions: list[str]) -> dict[str, Any]:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(len(questions), 3, 56, 56, generator=draw)
    prompts = [f"USER: {'<image>' * 16} {question} ASSISTANT:" for question in questions]
    return {**tokenizer(prompts, return_tensors="pt", padding=True), "pixel_values": pixels}


def by_hand(clip: Path, pixels: Tensor, text: str) -> ItemContext:
    """What CLIP itself makes of one image's patches and of a text, 10 letters a segment."""
    whole = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    letters = AutoTokenizer.from_pretrained(clip)(text)["input_ids"][1:-1]
    start, end = whole.config.text_config.bos_token_id, whole.config.text_config.eos_token_id
    tower = whole.vision_model
    with torch.no_grad():
        states = tower(pixels.unsqueeze(0)).last_hidden_state[0, 1:]
        norm = dict(tower.named_modules())
        norm = next(module for name, module in norm.items() if name.endswith("post_layernorm"))
        segments = [
            whole.get_text_features(input_ids=torch.tensor([[start, *letters[first : first + 10], end]])).pooler_output[
                0
            ]
            for first in range(0, len(letters), 10)
        ]
        return ItemContext(clip_embeddings=whole.visual_projection(norm(states)), clip_text=torch.stack(segments))


def test_the_question_and_the_patches_are_what_clip_makes_of_them(
    model: PreTrainedModel, llava: Path, clip: Path
) -> None:
    inputs = inputs_of(llava, ["word3", "What is word7 word12"])
    texts = ["word3 ASSISTANT:", "What is word7 word12 ASSISTANT:"]
    method = CDPruner(clip=str(clip))
    with prune(model, method, num_keep=6) as pruning, torch.no_grad():
        model(**inputs)
        tokens = model.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    for item, text, pixels, own in zip(pruning.last.items, texts, inputs["pixel_values"], tokens, strict=True):
        context = by_hand(clip, pixels, text)
        # 14 letters are two segments, 27 are three.
        assert len(context.clip_text) == (2 if text == texts[0] else 3)
        assert item.selection_order.equal(method.select(own, 6, context))
    first, second = (by_hand(clip, inputs["pixel_values"][0], text) for text in texts)
    assert not method.select(tokens[0], 6, first).equal(method.select(tokens[0], 6, second))


def test_embeddings_are_exact(model: PreTrainedModel, llava: Path, clip: Path) -> None:
    space = clip_space(model, tower_of(model), str(clip))
    context = by_hand(clip, torch.ones(3, 56, 56), "What is word7 word12")
    with torch.no_grad():
        states = model.model.vision_tower(torch.ones(1, 3, 56, 56)).last_hidden_state[0, 1:]
    assert space.embed_patches(states).allclose(context.clip_embeddings)
    ids = AutoTokenizer.from_pretrained(llava)("What is word7 word12", return_tensors="pt")["input_ids"][0]
    assert space.embed_text(ids).allclose(context.clip_text)
    # Nothing to read is a segment of its own.
    assert space.embed_text(ids[:0]).shape == (1, 16)
    assert clip_space(model, tower_of(model), str(clip)) is space


def test_relevance_has_the_paper_s_minus_sign() -> None:
    """Tokens at right angles: the determinant takes the largest relevance first, the least similar patch.

    Cosines with (1, 0) are 1, 0, -1, 0.6: relevance -1, 0, 1, -0.6. With (0, 1) they are 0, 1, 0, 0.8, so the means of
    both are 0.5, 0.5, -0.5, 0.7: relevance -0.5, -0.5, 0.5, -0.7, and of the two equal ones the first is first.
    """
    patches = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.6, 0.8]])
    method = CDPruner(clip="folder")
    for text, expected in (([[1.0, 0.0]], [2, 1, 3, 0]), ([[1.0, 0.0], [0.0, 5.0]], [2, 0, 1, 3])):
        context = ItemContext(clip_embeddings=patches, clip_text=torch.tensor(text))
        assert method.select(torch.eye(4), 4, context).tolist() == expected
    assert (method.needs, CDPruner().needs) == ({"clip_embeddings", "clip_text"}, {"text_embeddings"})


def test_half_types_of_the_same_tower_fit(model: PreTrainedModel, clip: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        attach(model.to(dtype), CDPruner(clip=str(clip)), num_keep=3).detach()


def test_llava_next_takes_its_tiles_patches(llava: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CASES["llava_next"].build()
    space = clip_space(AutoModelForImageTextToText.from_pretrained(llava), tower_of(model), str(clip))
    monkeypatch.setattr("divprune.huggingface.encoding.method_inputs.clip_space", lambda *_: space)
    inputs = make_inputs(CASES["llava_next"], model, [[1, "image", 5]])
    with (
        prune(model, CDPruner(clip=str(clip)), num_keep=2, scope="tile", newlines="keep") as pruning,
        torch.no_grad(),
    ):
        model(**inputs)
    item = pruning.last.items[0]
    patches = item.kept_indices[~item.layout.newlines[item.kept_indices]]
    assert item.layout.tile[patches].bincount().unique().tolist() == [2]


def refused(model: PreTrainedModel, folder: Path | str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        attach(model, CDPruner(clip=str(folder)), num_keep=3)


def test_other_checkpoints_are_refused(model: PreTrainedModel, llava: Path, clip: Path, tmp_path: Path) -> None:
    refused(model, tmp_path / "nowhere", CheckpointError, "clip must be the folder of a CLIP checkpoint, got .*nowhere")
    refused(model, "openai/clip", CheckpointError, "got 'openai/clip', which has no config.json")
    refused(model, llava, CheckpointError, "must be a whole CLIP checkpoint, of type 'clip', got .* of 'llava'")
    larger = checkpoint_writers.write_clip(tmp_path / "larger", image_size=70)
    refused(
        model, larger, CheckpointError, r"of other sizes \(image_size 56 and 70\).*openai/clip-vit-large-patch14-336"
    )
    other = checkpoint_writers.write_clip(tmp_path / "other", seed=2)
    refused(model, other, CheckpointError, "whose embeddings.patch_embedding differs: a tower that was trained further")
    CLIPVisionModel.from_pretrained(clip).save_pretrained(tmp_path / "half")
    shutil.copy(clip / "config.json", tmp_path / "half")
    refused(model, tmp_path / "half", CheckpointError, "is incomplete: weights are missing")
    shutil.copytree(clip, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    refused(model, tmp_path / "pickled", CheckpointError, r"its weights are \.bin files, which may run code")
    shutil.copytree(clip, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"torn")
    refused(model, tmp_path / "torn", CheckpointError, "cannot load .*torn")


def test_one_weight_of_the_last_block_tells_a_trained_tower(model: PreTrainedModel, clip: Path) -> None:
    blocks = [module for name, module in model.model.vision_tower.named_modules() if name.endswith("mlp.fc2")]
    with torch.no_grad():
        blocks[-1].weight[0, 0] += 0.01
    refused(model, clip, CheckpointError, r"layers\.2\.mlp\.fc2 differs")


def test_models_that_cannot_be_read_so_are_refused(model: PreTrainedModel, llava: Path, clip: Path) -> None:
    refused(
        CASES["paligemma"].build(), clip, UnsupportedModelError, "this model's vision tower is 'siglip_vision_model'"
    )
    keeps_cls = CASES["llava"].build()
    keeps_cls.config.vision_feature_select_strategy = "full"
    refused(keeps_cls, clip, UnsupportedModelError, "its vision encoder is not known")
    model.config._name_or_path = model.name_or_path = ""
    refused(model, clip, UnsupportedModelError, "needs the model's own tokenizer .*save the processor beside the model")


def test_encoded_images_are_refused(model: PreTrainedModel, llava: Path, clip: Path) -> None:
    inputs = inputs_of(llava, ["word3"])
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        output = model.model.get_image_features(pixels, return_dict=True)
    with prune(model, CDPruner(clip=str(clip)), num_keep=3), pytest.raises(PruningError, match="pass images as pixels"):
        model.generate(**inputs, mm_encoder_outputs={"image": output}, max_new_tokens=1)
