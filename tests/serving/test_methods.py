"""What each served method keeps, and what is answered, equal those of `prune` in transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from divprune import prune
from divprune.methods import available_methods, get_method
from divprune.vllm_plugin.families import served_family
from divprune.vllm_plugin.refusals import why_refused
from tests.serving.cases import CASES, RATIO, Case, prompts, reference, video_prompts
from tests.serving.engines import NUM_TOKENS, Prompt, answers, ask
from tests.serving.reference import arguments

Engine = Callable[..., Any]
Checkpoint = Callable[[str], Path]
Found = tuple[list[Tensor], list[list[int]]]
"""The kept indices of each item of a prompt after the other, and the ids of each answer."""

SHALLOW = {"hiprune": "hiprune:early_layer=0", "vscan": "vscan:early_layer=0"}
"""Methods that read a layer which tiny vision towers do not have."""


def test_try(engine: Engine, checkpoint: Checkpoint) -> None:
    import time
    for name in ("llava", "llava_onevision", "llava_next"):
        case = CASES[name]
        for info in available_methods():
            try:
                spec = SHALLOW.get(info.name, info.name)
                method = get_method(spec)
            except Exception:
                continue
            arch = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration", "llava_onevision": "LlavaOnevisionForConditionalGeneration"}[name]
            if why_refused(method, served_family(arch), "image") or not method.needs:
                continue
            asked = prompts(case)
            t=time.time()
            settings = case.settings | {"limit_mm_per_prompt": {"image": 3, "video": 0}}
            llm = engine(name, {"keep_ratio": RATIO, "method": spec}, **settings)
            t1=time.time()
            model = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.model
            rows = []
            own = model.finished
            model.finished = lambda kind, items, kept, kwargs: (rows.extend(kept), own(kind, items, kept, kwargs))[1]
            try:
                theirs = answers(ask(llm, asked))
            except Exception as e:
                print(name, spec, "ENGINE", type(e), str(e)[:300]); continue
            t2=time.time()
            ref = reference(name, checkpoint(name))
            ours, kept = [], []
            with prune(ref.model, spec, keep_ratio=RATIO) as pruning:
                for text, media in asked:
                    inputs = ref.processor(text=text, **arguments(media), return_tensors="pt")
                    inputs = {k: v for k, v in inputs.items() if k != "image_num_patches"}
                    output = ref.model.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None)
                    ours.append(output[0, inputs["input_ids"].shape[1]:].tolist())
                    if media["image"]:
                        kept += [item.kept_indices for item in pruning.last.items]
            t3=time.time()
            same = [a == b for (_, a), b in zip(theirs, ours)]
            distinct = {tuple(k.tolist()) for k in kept}, {tuple(k.tolist()) for k in rows}
            print(name, spec, "ids", same, "kept", distinct[0] == distinct[1], len(rows), len(kept), f"{t1-t:.1f} {t2-t1:.1f} {t3-t2:.1f}", flush=True)
