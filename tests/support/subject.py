"""A family under test: its tiny model, its batches, the pruned calls and the reference they are compared with."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from divprune import DivPrune, prune
from divprune.budget import budget
from divprune.huggingface import PruningReport
from divprune.huggingface.model_inputs import cache_in
from divprune.methods import Method
from divprune.selection.reference import reference_select
from tests.support.handmade import KeepRule, ShortRow, short_rows
from tests.support.handmade_logits import greedy_logits
from tests.support.models.every_family import CASES, IMAGE, SOUND, VIDEO, Case, Row, make_inputs

RATIO = 0.3
STEPS = 9  # prefill and 8 decoded tokens
# A generated placeholder means nothing, and Gemma 4 embeds it as padding.
NEW_TOKENS = {"max_new_tokens": STEPS, "suppress_tokens": [SOUND, IMAGE, VIDEO]}
GREEDY = {**NEW_TOKENS, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

ONE_AND_TWO: list[Row] = [[1, 5, "image", 6, 7, 8], [1, 9, "image", 10, 11, "image", 12, 13, 14, 15]]
WITH_TEXT_ONLY: list[Row] = [[1, 5, 21, 22, 6], [1, "image", 9, 10, 31], [1, 41, 42]]
ONE_AND_TWO_VIDEOS: list[Row] = [[1, 5, "video", 6, 7, 8, 9, 10], [1, 9, "video", 10, 11, "video", 12]]
MIXED: list[Row] = [[1, "image", 5, "video", 6, 7, 8], [1, 7, "image", 8, 51]]

Result = TypeVar("Result")


class NotApplicableError(Exception):
    """The mode cannot be asked of this family; the message says why."""


class Subject:
    """A fresh model of a case: cells do not see what others did to theirs."""

    def __init__(self, case: Case, attention: str | None = None) -> None:
        self.case = case
        self.attention = attention
        self.model = case.build()
        if attention is not None:
            self.model.set_attn_implementation(attention)

    @property
    def batches(self) -> list[list[Row]]:
        """Every kind of batch that the family takes."""
        videos = "video" in self.case.kinds
        return [
            *((ONE_AND_TWO, WITH_TEXT_ONLY) if "image" in self.case.kinds else ()),
            *((ONE_AND_TWO_VIDEOS,) if videos else ()),
            *((MIXED,) if videos and self.case.mixed else ()),
        ]

    @property
    def positions(self) -> list[str]:
        """The values of `prune(positions=...)` that it takes, the default first."""
        return ["original"] if self.case.cells else list(self.case.positions)

    def inputs(self, rows: list[Row]) -> dict[str, Any]:
        """A left-padded batch, in the model's precision."""
        inputs = make_inputs(self.case, self.model, rows)
        is_float = {name for name, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()}
        return {name: value.to(self.model.dtype) if name in is_float else value for name, value in inputs.items()}

    def pruned(
        self, call: Callable[[], Result], method: Method | None = None, **settings: Any
    ) -> tuple[Result, PruningReport]:
        """What a call gives on the pruned model, and the report.

        Raises:
            NotApplicableError: the call fails, and it fails without pruning too.
        """
        try:
            with prune(self.model, method or DivPrune(), **({"keep_ratio": RATIO} | settings)) as pruning:
                result = call()
        except Exception:
            require_runs_unpruned(call)
            raise
        assert pruning.last is not None
        return result, pruning.last

    def call(self, **inputs: Any) -> Any:
        """`model.generate` as it is when this is called, pruned or not."""
        return self.model.generate(**inputs)

    def generate(self, inputs: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor, Any]:
        """Greedy: new tokens (B, t), the logits before each (B, t, vocabulary), and the cache."""
        output = self.model.generate(**(GREEDY | inputs | settings))
        length = inputs["input_ids"].shape[1]
        assert torch.equal(output.sequences[:, :length], inputs["input_ids"])
        return output.sequences[:, length:], torch.stack(output.logits, dim=1), cache_in(output)

    def reference_rows(self, inputs: dict[str, Any], keep: KeepRule, positions: str | None = None) -> list[ShortRow]:
        """Each row shortened by hand."""
        return short_rows(self.case, self.model, inputs, keep, (positions or self.positions[0]) == "compact")

    def greedy_error(
        self, inputs: dict[str, Any], keep: KeepRule, positions: str, tokens: Tensor, logits: Tensor
    ) -> float:
        """Largest difference between logits and the reference's, given the same tokens."""
        rows = zip(self.reference_rows(inputs, keep, positions), tokens, strict=True)
        expected = [greedy_logits(self.case, self.model, row, row_tokens) for row, row_tokens in rows]
        return float((torch.stack(expected) - logits).abs().max())


def require_runs_unpruned(call: Callable[[], Any]) -> None:
    """Tells a failure of transformers itself from one of pruning."""
    try:
        call()
    except Exception as error:
        line = str(error).strip().splitlines()
        seen = f"{type(error).__name__}: {line[0]}" if line else type(error).__name__
        raise NotApplicableError(f"transformers cannot, without pruning too ({seen})") from error


def divprune_rule(order: str = "sorted") -> KeepRule:
    """The kept tokens by the ten-line implementation of Algorithm 1."""

    def keep(visual_tokens: Tensor) -> Tensor:
        picks = reference_select(visual_tokens, budget(len(visual_tokens), keep_ratio=RATIO))
        return picks if order == "selection" else picks.sort().values

    return keep


def first_tokens(visual_tokens: Tensor) -> Tensor:
    """The wrong tokens: every cell must notice them."""
    return torch.arange(budget(len(visual_tokens), keep_ratio=RATIO))


def positions_of(name: str) -> list[str]:
    return ["original"] if CASES[name].cells else list(CASES[name].positions)
