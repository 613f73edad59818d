"""Code around a pruned model: scoring and training with `forward`, PEFT, accelerate, pipelines."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedModel

from divprune import DivPrune, attach, prune
from tests.support.checkpoint_writers import write_llava
from tests.support.float64 import is_different, is_rounding
from tests.support.greedy_calls import generate_logits, largest_error
from tests.support.handmade import short_rows
from tests.support.handmade_logits import all_logits
from tests.support.models.every_family import CASES, make_inputs
from tests.support.subject import RATIO, divprune_rule, first_tokens


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_the_likelihood_of_a_continuation_is_right(name: str) -> None:
    case, model = CASES[name], CASES[name].build()
    inputs = make_inputs(case, model, [[1, 5, "image", 6, 7, 31, 32, 33], [1, "image", 8, 41, 42, 43]])
    with prune(model, DivPrune(), keep_ratio=RATIO), torch.no_grad():
        logits = model(**inputs).logits
    for keep, is_right in ((divprune_rule(), True), (first_tokens, False)):
        for number, row in enumerate(short_rows(case, model, inputs, keep)):
            answer = inputs["input_ids"][number, -3:, None]
            expected = all_logits(case, model, row, answer[:0, 0])[-4:-1].log_softmax(-1).gather(-1, answer).sum()
            found = logits[number, -4:-1].log_softmax(-1).gather(-1, answer).sum()
            assert is_rounding(abs(found - expected)) if is_right else is_different(abs(found - expected))


def test_the_kept_columns_are_those_of_the_keep_mask(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    """How to find the logits of a column of the original prompt, as the guide says."""
    inputs = make_inputs(CASES["llava"], model, [[1, 5, "image", 6, 7], [1, 9, 10, "image", 11]])
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning, torch.no_grad():
        logits = model(**inputs).logits
    full = torch.full((*inputs["input_ids"].shape, logits.shape[-1]), float("nan"))
    full[pruning.last.keep_mask] = logits.flatten(0, 1)
    for number, row in enumerate(short_rows(CASES["llava"], model, inputs, divprune_rule())):
        expected = all_logits(CASES["llava"], model, row, inputs["input_ids"][0, :0])
        assert is_rounding((full[number, row.columns] - expected).abs().max())


def test_gradients_reach_the_pixels_through_the_kept_tokens_only(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> None:
    features = []
    encode = model.model.get_image_features

    @functools.wraps(encode)
    def remembered(*args: Any, **kwargs: Any) -> Any:
        output = encode(*args, **kwargs)
        for entry in output.pooler_output:
            entry.retain_grad()
        features.extend(output.pooler_output)
        return output

    model.model.get_image_features = remembered
    pixels = inputs["pixel_values"].requires_grad_()
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] > 90, -100)
        model(**{**inputs, "pixel_values": pixels}, labels=labels).loss.backward()
    assert pixels.grad.abs().sum() > 0
    assert model.model.multi_modal_projector.linear_2.weight.grad.abs().sum() > 0
    items = pruning.last.items
    touched = torch.cat([entry.grad.reshape(-1, 32).abs().sum(-1) > 0 for entry in features])
    kept = torch.cat([item.kept_indices + 36 * number for number, item in enumerate(items)])
    assert touched.nonzero().squeeze(-1).tolist() == kept.tolist()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_peft_model_is_pruned_with_its_adapters(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    tuned.eval()
    unpruned = tuned.generate(**inputs, max_new_tokens=3)
    for which in (tuned, tuned.get_base_model()):
        handle = attach(which, DivPrune(), keep_ratio=RATIO)
        tokens, logits = generate_logits(tuned, inputs)
        assert handle.last.num_kept < handle.last.num_visual_tokens
        handle.detach()
        base = tuned.get_base_model()
        assert is_rounding(largest_error(CASES["llava"], base, inputs, divprune_rule(), tokens, logits))
        assert largest_error(CASES["llava"], base, inputs, first_tokens, tokens, logits) > 1e-2
    with prune(tuned, DivPrune(), keep_ratio=RATIO):
        tuned(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in tuned.parameters())
    assert torch.equal(tuned.generate(**inputs, max_new_tokens=3), unpruned)


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")  # transformers 5.18, of the meta device
@pytest.mark.parametrize("how", ["cpu_offload", "device map", "disk_offload"])
def test_models_that_accelerate_spreads_are_pruned(
    model: PreTrainedModel, inputs: dict[str, Any], how: str, tmp_path: Path
) -> None:
    accelerate = pytest.importorskip("accelerate")
    with prune(model, DivPrune(), keep_ratio=RATIO):
        expected, _ = generate_logits(model, inputs)
        logits = model(**inputs).logits
    if how == "cpu_offload":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    elif how == "disk_offload":
        accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    else:
        accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
    with prune(model, DivPrune(), keep_ratio=RATIO), torch.no_grad():
        assert torch.equal(generate_logits(model, inputs)[0], expected)
        assert torch.allclose(model(**inputs).logits, logits, atol=1e-5)


@pytest.mark.float32
@pytest.mark.filterwarnings("ignore:.*quantiz:DeprecationWarning", "ignore:.*quantiz:UserWarning")
def test_quantised_weights_are_used_and_left_as_they_are(model: PreTrainedModel) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    inputs = make_inputs(CASES["llava"], quantised, [[1, 5, "image", 6, 7]])
    before = quantised.lm_head.weight().int_repr().clone()
    with prune(quantised, DivPrune(), keep_ratio=RATIO) as pruning, torch.no_grad():
        logits = quantised(**inputs).logits
        quantised.generate(**inputs, max_new_tokens=3)
    assert torch.equal(quantised.lm_head.weight().int_repr(), before)
    assert pruning.last.num_kept == 11
    for keep, is_right in ((divprune_rule(), True), (first_tokens, False)):
        row = short_rows(CASES["llava"], quantised, inputs, keep)[0]
        error = (all_logits(CASES["llava"], quantised, row, inputs["input_ids"][0, :0]) - logits[0]).abs().max()
        assert is_rounding(error) if is_right else is_different(error)


def test_the_pipeline_answers_with_the_prompt_taken_off(tmp_path: Path) -> None:
    from transformers import AutoProcessor, pipeline

    folder = write_llava(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    picture = Image.new("RGB", (56, 56), "red")
    settings: dict[str, Any] = {"images": [picture], "text": "<image> word1 word2", "return_full_text": False}
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        answers = ask(**settings, max_new_tokens=4)
        assert pruning.last.num_kept < pruning.last.num_visual_tokens
        prompt = processor(images=[picture], text="<image> word1 word2", return_tensors="pt")
        sequence = model.generate(**prompt, max_new_tokens=4)[0, prompt["input_ids"].shape[1] :]
    expected = processor.decode(sequence, skip_special_tokens=True)
    assert answers[0]["generated_text"].strip() == expected.strip()
