"""Train and evaluate with transformers' Trainer on pruned prompts.

pip install accelerate
"""

import tempfile

from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from divprune import attach
from divprune.embedded import checkpoint_path, questions, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)
data = [{"seed": seed} for seed in range(8)]


def collate(rows: list[dict]) -> dict:
    """Build the inputs of some scenes with a question each; the loss is of the answers."""
    texts, images, answers = [], [], []
    for row in rows:
        shown = scene(row["seed"], "train")
        asked = questions(shown)[-1]  # describe the scene
        content = [{"type": "image"}, {"type": "text", "text": asked.prompt}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        texts.append(prompt + asked.answer)
        images.append(shown.image)
        answers.append(len(processor.tokenizer(asked.answer, add_special_tokens=False).input_ids))
    inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
    labels = inputs["input_ids"].clone()
    for row, length in enumerate(answers):
        labels[row, :-length] = -100
    return {**inputs, "labels": labels}


def argmax(logits, labels):
    """Lay the predictions, (B, L') over the pruned prompts, out over the original ones, (B, L)."""
    return pruning.last.spread(logits.argmax(dim=-1), fill=-100)


def accuracy(prediction) -> dict[str, float]:
    """Compare each answer's tokens with what was predicted one place before them."""
    guesses, labels = prediction.predictions[:, :-1], prediction.label_ids[:, 1:]
    return {"accuracy": float((guesses == labels)[labels != -100].mean())}


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        max_steps=3,
        per_device_train_batch_size=4,
        remove_unused_columns=False,  # the collator reads them
        report_to=[],
        logging_steps=1,
        use_cpu=True,  # leave this out where there is a GPU
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=argmax,
    )
    # Attach last: libraries that train put a `forward` of their own on the model.
    pruning = attach(model, keep_ratio=0.098)
    trainer.train()
    print(pruning.last)
    # Of what the model returns the logits are enough.
    scores = trainer.evaluate(ignore_keys=["past_key_values", "cache", "image_outputs", "image_hidden_states"])
    print(f"accuracy of the answers' tokens: {scores['eval_accuracy']:.2f}")
    pruning.detach()
