"""Conversations whose tokens are dropped inside the LLM."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.model_inputs import CACHE
from tests.support.handmade_entering import FullRow
from tests.support.handmade_layers import joined, run
from tests.support.layer_cases import (
    STEPS,
    attention_of,
    build,
    cache_of,
    generate_logits,
    inputs_of,
    kinds_of,
    rows_of,
)
from tests.support.layer_variants import INSIDE
from tests.support.models.every_family import NO_PLACEHOLDERS, Row

FIRST: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, 12, 13]]
SECOND: list[Row] = [[31, 32, "image", 33, 34], [41, "image", 42]]


class Talk:
    """Two turns of a batch; the second brings a picture for every row, after a first that may have none."""

    def __init__(
        self,
        name: str,
        kind: str = "dynamic",
        turns: tuple[list[Row], list[Row]] = (FIRST, SECOND),
        model: PreTrainedModel | None = None,
    ) -> None:
        static = {"cache_implementation": "static"} if kind == "static" else {}
        self.name = name
        self.model = model or build(name, attention_of(name), **static)
        self.first, self.second = (inputs_of(name, self.model, rows) for rows in turns)
        if set(kinds_of(self.model)) - {"full_attention"} or INSIDE[name].positions == ("compact",):
            # Windows, running states and counted columns take the padding between two turns for tokens.
            self.second = inputs_of(name, self.model, filled(turns[1], self.second["attention_mask"]))
        length = self.first["input_ids"].shape[1] + STEPS + self.second["input_ids"].shape[1] + STEPS
        self.cache = cache_of(self.model, kind, length)

    def run(self, new_ids_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What was said in between, the new tokens (B, STEPS), and their logits."""
        said, _, _ = generate_logits(self.model, self.first, **{CACHE: self.cache}, **NO_PLACEHOLDERS)
        ones = torch.ones(len(said), STEPS, dtype=torch.int64)
        # The last generated token is not in the cache yet.
        inputs = dict(self.second)
        inputs["attention_mask"] = torch.cat(
            [self.first["attention_mask"], ones, self.second["attention_mask"]], dim=-1
        )
        for key, values in self.second.items():
            if is_per_token(values, self.second) and key != "attention_mask":
                before = self.first.get(key, torch.zeros_like(self.first["input_ids"]))
                between = said if key == "input_ids" else 0 * said
                full = torch.cat([before, between.to(values.dtype), values], dim=-1)
                inputs[key] = full[:, self.first["input_ids"].shape[1] + STEPS - 1 :] if new_ids_only else full
        tokens, logits, _ = generate_logits(self.model, inputs, **{CACHE: self.cache}, **NO_PLACEHOLDERS)
        return said, tokens, logits

    def rows(self, said: Tensor) -> list[FullRow]:
        first, second = (rows_of(self.name, self.model, inputs) for inputs in (self.first, self.second))
        return [joined(self.model, *parts) for parts in zip(first, said, second, strict=True)]

    def error(self, rules: Any, said: Tensor, tokens: Tensor, logits: Tensor, with_keys: bool = False) -> float:
        rows = zip(self.rows(said), tokens, strict=True)
        expected = [run(self.model, row, new[:-1], rules, with_keys=with_keys).logits for row, new in rows]
        return float((torch.stack(expected) - logits).abs().max())


def filled(rows: list[Row], mask: Tensor) -> list[Row]:
    missing = (mask == 0).sum(dim=-1).tolist()
    return [[*row, *range(20, 20 + count)] for row, count in zip(rows, missing, strict=True)]


def is_per_token(values: Any, inputs: dict[str, Any]) -> bool:
    return isinstance(values, Tensor) and values.shape == inputs["input_ids"].shape
