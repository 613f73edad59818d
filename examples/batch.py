"""Ask several questions in one call: prompts of different lengths, one of them with two images, one without any."""

from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)


def prompt_of(question: str, num_images: int) -> str:
    """Write a question about some images as the model's chat template wants it."""
    content = [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


prompts = [
    prompt_of("How many objects are there?", 1),
    prompt_of("Is there a red circle?", 1),
    prompt_of("How many objects are there?", 2),
    prompt_of("How many objects are there?", 0),
]
images = [scene(seed).image for seed in (0, 1, 2, 3)]  # in the order of the prompts
# Answers are generated at the right end, so prompts are padded on the left.
inputs = processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")

with prune(model, keep_ratio=0.098) as pruning:
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)

answers = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
for row, answer in enumerate(answers):
    kept = [f"{item.num_kept} of {item.num_visual_tokens}" for item in pruning.last.items if item.row == row]
    print(f"{row}: {answer} ({' and '.join(kept) or 'no image'})")
