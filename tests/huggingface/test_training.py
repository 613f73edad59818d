"""Training and evaluating with pruned tokens, by transformers' own Trainer, as the guide says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments

from divprune import attach, prune
from divprune.errors import PruningError
from tests.support.models.every_family import CASES, make_inputs

pytestmark = [pytest.mark.float32, pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")]
OTHER_OUTPUTS = ["past_key_values", "cache", "image_outputs", "image_hidden_states"]
SAMPLES = [[1, 5, "image", 6, 40 + number, 21, 22] for number in range(4)]


def collate(model: PreTrainedModel) -> Any:
    def collated(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        inputs = make_inputs(CASES["llava"], model, [sample["row"] for sample in samples])
        labels = inputs["input_ids"].clone()
        labels[:, :-3] = -100
        return {**inputs, "labels": labels}

    return collated


def trainer_of(model: PreTrainedModel, folder: Path) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        max_steps=8,
        learning_rate=3e-3,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    rows: Any = [{"row": row} for row in SAMPLES]
    return Trainer(model, arguments, data_collator=collate(model), train_dataset=rows, eval_dataset=rows)


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loss_falls_on_pruned_prompts(tmp_path: Path, method: str, checkpointing: bool) -> None:
    model = CASES["llava"].build()
    if checkpointing:
        # Its name from transformers 5.24 on, and before.
        (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    trainer = trainer_of(model, tmp_path)
    pruning = attach(model, method, keep_ratio=0.098)
    if checkpointing and method != "divprune":
        with pytest.raises(PruningError, match="gradient"):
            trainer.train()
        return
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert pruning.last.num_kept == sum(round(0.098 * item.num_visual_tokens) for item in pruning.last.items)


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=2"])
def test_metrics_are_computed_over_the_original_prompt(tmp_path: Path, method: str) -> None:
    model, seen = CASES["llava"].build(), []
    trainer = trainer_of(model, tmp_path)
    pruning = attach(model, method, keep_ratio=0.3)

    def preprocess(logits: Tensor, labels: Tensor) -> Tensor:
        return pruning.last.spread(logits.argmax(dim=-1), fill=-100)

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        assert prediction.predictions.shape == prediction.label_ids.shape
        guesses, labels = prediction.predictions[:, :-1], prediction.label_ids[:, 1:]
        seen.append((guesses == labels)[labels != -100])
        return {"accuracy": float(np.mean(seen[-1]))}

    trainer.preprocess_logits_for_metrics, trainer.compute_metrics = preprocess, metrics
    trainer.train()
    accuracy = trainer.evaluate(ignore_keys=OTHER_OUTPUTS)["eval_accuracy"]
    right = []
    with torch.no_grad():
        for rows in (SAMPLES[:2], SAMPLES[2:]):
            inputs = make_inputs(CASES["llava"], model, rows)
            guesses = model(**inputs).logits[:, -4:-1].argmax(dim=-1)
            right += (guesses == inputs["input_ids"][:, -3:]).flatten().tolist()
    assert seen[-1].size == len(right) == 12
    assert accuracy == sum(right) / len(right) > 0


def test_data_parallel_training_prunes_the_module_within(tmp_path: Path) -> None:
    model = CASES["llava"].build()
    inputs = collate(model)([{"row": row} for row in SAMPLES[:2]])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        with prune(parallel.module, keep_ratio=0.3) as pruning:
            expected = model(**inputs).loss
            loss = parallel(**inputs).loss
            loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(loss, expected)
    assert pruning.last.num_kept < pruning.last.num_visual_tokens
    assert model.lm_head.weight.grad.abs().max() > 0
