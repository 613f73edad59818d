"""A server of one's own: POST an image and a question, get the answer and what pruning saved.

pip install fastapi uvicorn python-multipart
uvicorn fastapi_app:app --port 8000      # in this folder
curl -F image=@cat.jpg -F question="What is this?" -F keep_ratio=0.098 http://127.0.0.1:8000/ask
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form, HTTPException, UploadFile
from transformers import AutoModelForImageTextToText, AutoProcessor

from divprune import attach
from divprune.embedded import checkpoint_path
from divprune.errors import DivpruneError
from divprune.media import decode_image

CHECKPOINT = checkpoint_path()  # the embedded model; or "llava-hf/llava-1.5-7b-hf"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model once, and prune it for as long as the server runs."""
    app.state.processor = AutoProcessor.from_pretrained(CHECKPOINT)
    app.state.model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    app.state.pruning = attach(app.state.model, "divprune", keep_ratio=0.098)
    yield
    app.state.pruning.detach()


app = FastAPI(lifespan=lifespan)


@app.post("/ask")
def ask(  # not async: FastAPI runs it in a thread, and the event loop goes on answering
    image: UploadFile,
    question: Annotated[str, Form()],
    keep_ratio: Annotated[float, Form(gt=0, le=1)] = 0.098,
) -> dict[str, Any]:
    """Answer from `keep_ratio` of the image's visual tokens; 1 keeps all of them."""
    processor, model, pruning = app.state.processor, app.state.model, app.state.pruning
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    try:
        photo = decode_image(image.file.read(), image.filename or "upload").frames[0]
        inputs = processor(text=prompt, images=photo, return_tensors="pt").to(model.device)
        # The override is of this thread alone, and so is pruning.last: requests never mix.
        with pruning.override(keep_ratio=keep_ratio):
            output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    except (DivpruneError, ValueError) as error:  # an unreadable image, a prompt that cannot be pruned
        raise HTTPException(status_code=400, detail=str(error)) from None
    return {
        "answer": processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True),
        "visual_tokens": pruning.last.num_visual_tokens,
        "kept": pruning.last.num_kept,
        "kv_cache_bytes": pruning.last.kv_cache_bytes,
        "kv_cache_bytes_unpruned": pruning.last.kv_cache_bytes_unpruned,
    }
