"""Show an answer word by word while it is generated."""

from threading import Thread

from transformers import AutoModelForImageTextToText, AutoProcessor, TextIteratorStreamer

from divprune import attach
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)

content = [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=scene(0).image, return_tensors="pt")

pruning = attach(model, keep_ratio=0.098)
streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
reports = []


def generate() -> None:
    """Generate, and keep the report: `pruning.last` is of the thread that called."""
    model.generate(**inputs, max_new_tokens=32, do_sample=False, streamer=streamer)
    reports.append(pruning.last)


thread = Thread(target=generate)
thread.start()
for words in streamer:
    print(words, end="", flush=True)
thread.join()
print(f"\n({reports[0]})")
pruning.detach()
