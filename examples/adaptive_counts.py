"""Let the image say how many tokens stay, or give each image, modality or call its own budget."""

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import DivPrune, prune
from divprune.embedded import checkpoint_path, scene

checkpoint = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint)
content = [{"type": "image"}, {"type": "text", "text": "How many objects are there?"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
blank, full = Image.new("RGB", (128, 128), "white"), scene(0).image


def kept_of(pruning, *images: Image.Image) -> list[int]:
    """Ask about each image, a row each, and return how many tokens of each stayed."""
    inputs = processor(text=[prompt] * len(images), images=list(images), return_tensors="pt")
    model.generate(**inputs, max_new_tokens=2, do_sample=False)
    return [item.num_kept for item in pruning.last.items]


# By content: picks stop before the first that is nearer than 0.02 to a kept token; a quarter is the most that stays.
with prune(model, DivPrune(min_distance=0.02), keep_ratio=0.25) as pruning:
    print("by content, blank and full:", kept_of(pruning, blank, full))

# By content, as PruMerge counts: tokens whose attention in the vision encoder stands out.
with prune(model, "divprune-star") as pruning:
    print("as PruMerge counts:", kept_of(pruning, blank, full))

# By item: the first image whole, a tenth of the second.
with prune(model, keep_ratio=[1.0, 0.1]) as pruning:
    print("by item:", kept_of(pruning, full, full))

# For one call: with another budget inside the block.
with prune(model, keep_ratio=0.25) as pruning:
    with pruning.override(num_keep=10):
        print("for one call:", kept_of(pruning, full))
    print("and again as before:", kept_of(pruning, full))
