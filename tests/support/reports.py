"""The report of a pruned call."""

from typing import Any

from divprune import DivPrune, prune
from tests.support.models.every_family import CASES, make_inputs


def pruned(name: str, rows: Any, *, ratio: float = 0.3, method: Any = None, **settings: Any) -> tuple[Any, Any, Any]:
    model = CASES[name].build()
    inputs = make_inputs(CASES[name], model, rows)
    with prune(model, method or DivPrune(), keep_ratio=ratio, **settings) as pruning:
        model.generate(**inputs, max_new_tokens=1)
    return model, inputs, pruning.last
