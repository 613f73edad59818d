"""Draw the kept tokens on the image: `pruning.last.items[0].boxes(...)` says where each of them lies, in pixels."""

from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import prune
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)
image = scene(0).image.resize((512, 512))

content = [{"type": "image"}, {"type": "text", "text": "How many objects are there?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=image, return_tensors="pt")

with prune(model, keep_ratio=0.098) as pruning:
    model.generate(**inputs, max_new_tokens=8, do_sample=False)

item = pruning.last.items[0]
picks = {token: pick for pick, token in enumerate(item.selection_order.tolist(), start=1)}
overlay = Image.blend(image, Image.new("RGB", image.size, "white"), 0.7)
pen = ImageDraw.Draw(overlay)
# The processor knows how it crops and scales, so boxes are pixels of the image as it was given.
for token, box in zip(item.kept_indices.tolist(), item.boxes(image.size, processor), strict=True):
    if box is None:  # a token with no place in the image, such as an image newline token
        continue
    corners = tuple(round(corner) for corner in (box.left, box.top, box.right, box.bottom))
    overlay.paste(image.crop(corners), corners[:2])
    pen.rectangle(corners, outline="black")
    pen.text((corners[0] + 2, corners[1] + 2), str(picks[token]), fill="black")  # the order of the picks
overlay.save("kept.png")
print(f"kept.png shows {item.num_kept} of {item.num_visual_tokens} tokens")
