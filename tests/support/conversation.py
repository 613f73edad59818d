"""A second turn on a kept cache, and the same conversation by hand: all of it in one go, nothing cached, no padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from divprune.huggingface.model_inputs import CACHE, cache_in
from tests.support.handmade import KeepRule, ShortRow, items_of, short_row
from tests.support.models.every_family import IMAGE, SOUND, VIDEO, Case, Row, make_inputs

GREEDY = {
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
    # A generated placeholder means nothing, and Gemma 4 embeds it as padding; Ovis2 embeds the tokens around a picture
    # (90 to 92) otherwise than generated ones.
    "suppress_tokens": [SOUND, IMAGE, VIDEO, 90, 91, 92],
}


@dataclass
class Turn:
    """One turn: what the user asked (padded on its own), the generated ids (B, t), the logits before each."""

    rows: list[Row]
    inputs: dict[str, Any]
    tokens: Tensor
    logits: Tensor


@dataclass
class Conversation:
    """Two turns, and the report on each prompt."""

    case: Case
    first: Turn
    second: Turn
    keep_masks: list[Tensor]


def second_turn(
    case: Case,
    model: PreTrainedModel,
    pruning: Any,
    rows: list[Row],
    asked: list[Row],
    *,
    new_ids_only: bool = False,
    steps: int = 5,
    **settings: Any,
) -> Conversation:
    """Asks a pruned model twice, as a user of transformers does who keeps the cache."""
    first_inputs = make_inputs(case, model, rows)
    output = model.generate(**first_inputs, **GREEDY, max_new_tokens=steps, **settings)
    first = _turn(rows, first_inputs, output, first_inputs["input_ids"])
    keep_masks = [pruning.last.keep_mask]

    new_inputs = make_inputs(case, model, asked)
    inputs = {**new_inputs, **_joined(first, new_inputs)}
    if new_ids_only:
        # The last generated token is not in the cache yet.
        start = output.sequences.shape[1] - 1
        for name in _per_token(new_inputs):
            if name != "attention_mask":
                inputs[name] = inputs[name][:, start:]
    again = model.generate(**inputs, **GREEDY, max_new_tokens=steps, **{CACHE: cache_in(output)})
    second = _turn(asked, new_inputs, again, inputs["input_ids"])
    return Conversation(case, first, second, [*keep_masks, pruning.last.keep_mask])


def _turn(rows: list[Row], inputs: dict[str, Any], output: Any, prompt: Tensor) -> Turn:
    assert torch.equal(output.sequences[:, : prompt.shape[1]], prompt)
    return Turn(rows, inputs, output.sequences[:, prompt.shape[1] :], torch.stack(output.logits, dim=1))


def _per_token(inputs: dict[str, Any]) -> list[str]:
    return ["input_ids", "attention_mask", *(name for name in inputs if name.endswith("token_type_ids"))]


def _joined(first: Turn, new_inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Ids, mask and types of the whole conversation."""
    count = first.tokens.shape[1]
    between = {"input_ids": first.tokens, "attention_mask": torch.ones_like(first.tokens)}
    return {
        # As generate does it, a generated token is of the type of the last one before.
        name: torch.cat([asked, between.get(name, asked[:, -1:].expand(-1, count)), new_inputs[name]], dim=-1)
        for name, asked in first.inputs.items()
        if name in _per_token(new_inputs)
    }


def longer(inputs: dict[str, Any], sequences: Tensor, new: list[list[int]]) -> dict[str, Tensor]:
    """Ids and mask of the conversation so far, with new text behind it."""
    ids = torch.cat([sequences, torch.tensor(new)], dim=-1)
    mask = torch.ones_like(ids)
    known = inputs["attention_mask"]
    mask[:, : known.shape[1]] = known
    return {"input_ids": ids, "attention_mask": mask}


def by_hand(
    talk: Conversation, model: PreTrainedModel, keep: KeepRule, compact: bool | None = None
) -> Iterator[ShortRow]:
    """Each row's whole conversation before the second answer, shortened by hand."""
    queues = {kind: queue for kind in talk.case.kinds if (queue := _queue(talk, model, kind))}
    start = talk.first.inputs["input_ids"].shape[1] + talk.first.tokens.shape[1]
    whole = _joined(talk.first, talk.second.inputs)
    for number, mask in enumerate(whole["attention_mask"].bool()):
        alone = {name: values[None, number, mask] for name, values in whole.items()}
        row = short_row(talk.case, model, alone, 0, queues, keep, compact)
        row.columns = mask.nonzero().squeeze(-1)[row.columns].tolist()
        row.turns = (torch.tensor(row.columns) >= start).long()
        yield row


def _queue(talk: Conversation, model: PreTrainedModel, kind: str) -> list[Any]:
    """The items of a kind, row by row: first those of the first turn, then those of the second."""
    turns = [(turn, items_of(talk.case, model, kind, turn.inputs)) for turn in (talk.first, talk.second)]
    queue = []
    for number in range(len(talk.first.rows)):
        for turn, items in turns:
            queue += [items.pop(0) for _ in range(turn.rows[number].count(kind))]
    return queue
