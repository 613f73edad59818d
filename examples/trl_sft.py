"""Fine-tune with TRL's SFTTrainer on pruned prompts.

pip install trl
"""

import tempfile

from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from divprune import attach
from divprune.embedded import checkpoint_path, questions, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)


def sample(seed: int) -> dict:
    """Make a conversation of a scene, a question and its answer."""
    shown = scene(seed, "train")
    asked = questions(shown)[-1]  # describe the scene
    said = [{"type": "image", "text": None}, {"type": "text", "text": asked.prompt}]
    return {
        "images": [shown.image],
        "prompt": [{"role": "user", "content": said}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": asked.answer}]}],
    }


with tempfile.TemporaryDirectory() as folder:
    arguments = SFTConfig(
        folder,
        max_steps=3,
        per_device_train_batch_size=2,
        max_length=None,  # a cut would fall into the image's placeholders
        gradient_checkpointing=False,
        report_to=[],
        logging_steps=1,
        use_cpu=True,  # leave this out where there is a GPU
        bf16=False,
        dataloader_pin_memory=False,
    )
    data = Dataset.from_list([sample(seed) for seed in range(8)])
    trainer = SFTTrainer(model, args=arguments, train_dataset=data, processing_class=processor)
    # Attach last: TRL puts a `forward` of its own on the model when the trainer is built.
    pruning = attach(model, keep_ratio=0.098)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print("loss:", " ".join(f"{float(loss):.3f}" for loss in losses))
    print(pruning.last)
    pruning.detach()
