"""Go on with a conversation on a kept cache: the image is encoded and pruned once, later turns read what is kept."""

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)

content = [{"type": "image"}, {"type": "text", "text": "How many objects are there?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=scene(0).image, return_tensors="pt")
# What the second question adds to the conversation, in the model's own template.
question = processor.apply_chat_template(
    [{"role": "user", "content": [{"type": "text", "text": "Describe the picture."}]}], add_generation_prompt=True
)
question_ids = processor.tokenizer(question, add_special_tokens=False, return_tensors="pt").input_ids
greedy = {"max_new_tokens": 24, "do_sample": False, "return_dict_in_generate": True}

with prune(model, keep_ratio=0.098) as pruning:
    first = model.generate(**inputs, **greedy)
    print(processor.decode(first.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(pruning.last)

    ids = torch.cat([first.sequences, question_ids], dim=-1)  # the whole conversation, unpruned ids
    cache = first["cache"] if "cache" in first else first["past_key_values"]  # its name since 5.24, and before
    second = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **greedy)
    print(processor.decode(second.sequences[0, ids.shape[1] :], skip_special_tokens=True))
    print("in the cache:", cache.get_seq_length(), "of", second.sequences.shape[1], "tokens")
