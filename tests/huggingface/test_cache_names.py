"""The cache under either name, on every version of transformers; one module that knows both."""

import ast
from pathlib import Path

import pytest
import torch

import divprune
from divprune import prune
from divprune.errors import PruningError
from divprune.huggingface.model_inputs import CACHE, NAMES, cache_in
from tests.support.conversation import GREEDY
from tests.support.models.every_family import CASES, make_inputs

PACKAGE = Path(divprune.__file__).parent


def second_turns(method: str, name: str) -> torch.Tensor:
    """The ids after a second turn on a kept cache, which is passed under `name` to `generate` and to `forward`."""
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, [[1, 5, "image", 6, 7]])
    with prune(model, method, keep_ratio=0.5):
        output = model.generate(**inputs, **GREEDY, max_new_tokens=2)
        ids = torch.cat([output.sequences, torch.tensor([[5, 8, 9]])], dim=-1)
        again = model.generate(input_ids=ids, **GREEDY, max_new_tokens=3, **{name: cache_in(output)})
        logits = model(input_ids=again.sequences[:, -1:], **{name: cache_in(again)}).logits
    return torch.cat([again.sequences, logits.argmax(dim=-1)], dim=-1)


@pytest.mark.parametrize("method", ["divprune", "fastv:layer=1", "divprune:layer=1"])
def test_a_kept_cache_continues_under_either_name(method: str) -> None:
    assert torch.equal(second_turns(method, NAMES[0]), second_turns(method, NAMES[1]))


def test_two_caches_are_refused() -> None:
    model = CASES["llava"].build()
    inputs = make_inputs(CASES["llava"], model, [[1, 5, "image", 6, 7]])
    with prune(model, keep_ratio=0.5):
        cache = cache_in(model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True))
        with pytest.raises(PruningError, match=f"two names of one argument, got both; pass the cache as {CACHE} alone"):
            model.generate(**inputs, **dict.fromkeys(NAMES, cache))


def uses(path: Path) -> set[str]:
    """Whatever a file could call the cache by: strings, arguments, keywords, attributes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant):
            found.add(node.value)
        elif isinstance(node, ast.keyword | ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


def test_one_module_knows_the_names() -> None:
    spelled = {path.name for path in PACKAGE.rglob("*.py") if "past_key_values" in uses(path)}
    # The new name is an everyday word, which our own functions use for a cache that they are handed.
    keyed = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "cache"
    }
    assert spelled == keyed == {"model_inputs.py"}
