"""Train a LoRA adapter on pruned prompts, save it, and answer with it: PEFT's wrapper is pruned like the model itself.

pip install peft
"""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, questions, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
base = AutoModelForImageTextToText.from_pretrained(checkpoint)
model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], exclude_modules=".*vision_tower.*"))

shown = scene(7, "train")
asked = questions(shown)[0]
answer = {"yes": "no", "no": "yes"}[asked.answer]  # the truth it knows already; so there is something to learn
content = [{"type": "image"}, {"type": "text", "text": asked.prompt}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=f"{prompt}{answer}", images=shown.image, return_tensors="pt")
answer_length = len(processor.tokenizer(answer, add_special_tokens=False).input_ids)
labels = torch.full_like(inputs["input_ids"], -100)
labels[:, -answer_length:] = inputs["input_ids"][:, -answer_length:]  # the loss is of the answer alone

optimizer = torch.optim.AdamW((weight for weight in model.parameters() if weight.requires_grad), lr=1e-2)
with prune(model, keep_ratio=0.098) as pruning:
    for step in range(6):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.4f}, {pruning.last}")

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)  # the adapter alone
    fresh = AutoModelForImageTextToText.from_pretrained(checkpoint)
    adapted = PeftModel.from_pretrained(fresh, folder)
question = processor(text=prompt, images=shown.image, return_tensors="pt")
with prune(adapted, keep_ratio=0.098):
    output = adapted.generate(**question, max_new_tokens=8, do_sample=False)
answered = processor.decode(output[0, question["input_ids"].shape[1] :], skip_special_tokens=True)
print("taught:", answer, "answers:", answered)
