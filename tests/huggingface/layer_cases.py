"""What the tests of pruning inside the language model share: families, batches, and the rule of each method."""

from typing import Any

import torch
from torch import Tensor

from divprune import VTW, DivPrune, FastV
from divprune.budget import budget
from divprune.methods import Method
from divprune.selection.reference import reference_select
from tests.huggingface.handmade_layers import Entering, Rule
from tests.huggingface.test_parity import MIXED, ONE_AND_TWO, ONE_AND_TWO_VIDEOS, RATIO, STEPS, WITH_TEXT_ONLY
from tests.huggingface.tiny_models import CASES, Row

FAMILIES = ("llava", "llava_next", "llava_next_video", "qwen2_5_vl")
CELLS: list[tuple[str, list[Row]]] = [
    (name, rows)
    for name in FAMILIES
    for rows in (
        ONE_AND_TWO,
        WITH_TEXT_ONLY,
        *((ONE_AND_TWO_VIDEOS, MIXED) if "video" in CASES[name].kinds else ()),
    )
]
METHODS = (DivPrune, FastV, VTW)
GREEDY = {"max_new_tokens": STEPS, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def settings_of(method: Method) -> dict[str, Any]:
    """What `prune` is told besides the method."""
    return {} if method.count == "schedule" else {"keep_ratio": RATIO}


def rule_of(method: Method) -> Rule:
    """The kept tokens of an item, written down from the paper."""
    return {"divprune": most_different, "fastv": most_attended, "vtw": none_at_all}[method.name]


def most_different(entering: Entering) -> Tensor:
    return reference_select(entering.hidden, count(entering)).sort().values


def most_attended(entering: Entering) -> Tensor:
    return entering.attention.mean(dim=0).topk(count(entering)).indices.sort().values


def none_at_all(_: Entering) -> Tensor:
    return torch.arange(0)


def first_tokens(entering: Entering) -> Tensor:
    """The wrong tokens: every test must notice them."""
    return torch.arange(count(entering))


def count(entering: Entering) -> int:
    return budget(len(entering.hidden), keep_ratio=RATIO)


def generate_logits(model: Any, inputs: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor, Any]:
    """New tokens (B, STEPS), the logits before each (B, STEPS, vocabulary), and the cache."""
    output = model.generate(**(GREEDY | inputs | settings))
    length = inputs["input_ids"].shape[1]
    assert torch.equal(output.sequences[:, :length], inputs["input_ids"])
    return output.sequences[:, length:], torch.stack(output.logits, dim=1), output.past_key_values
