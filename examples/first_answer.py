"""Answer a question about an image from a tenth of its visual tokens."""

from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)

content = [{"type": "image"}, {"type": "text", "text": "How many objects are there?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=scene(0).image, return_tensors="pt")

with prune(model, "divprune", keep_ratio=0.098) as pruning:
    output = model.generate(**inputs, max_new_tokens=8)

print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
print(pruning.last)  # 25 of 256 tokens (9.8%), selected in ..., KV cache ... -> ... MiB
print(pruning.last.items[0].kept_indices)
