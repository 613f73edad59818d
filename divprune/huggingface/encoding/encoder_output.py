"""The encoder's output in, the same output with some of its tokens out.

Models take the tokens of all pictures as a list of (tokens, d) tensors or as one tensor, and some add features for
deeper layers ("deepstack"), token by token. All of it is gathered with the same indices. The pruned output holds one
entry a row of the batch: that is what beam search repeats.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput


def flat_tokens(entries: Sequence[Tensor] | Tensor) -> Tensor:
    """Entries of any shape (..., d) -> (total, d), without a copy where one picture or one tensor holds all."""
    if isinstance(entries, Tensor):
        return entries.reshape(-1, entries.shape[-1])
    rows = [entry.reshape(-1, entry.shape[-1]) for entry in entries]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def take_tokens(output: ModelOutput, rows: list[Tensor]) -> ModelOutput:
    """A copy of an encoder's output that holds some of its tokens.

    Args:
        output: its `pooler_output` holds the visual tokens.
        rows: for each row of the batch that has any, the (k,) int64 indices of its tokens among all of the output.
    """
    taken = copy.copy(output)
    taken["pooler_output"] = _take(output["pooler_output"], rows)
    deepstack = output.get("deepstack_features")
    if deepstack is not None:
        taken["deepstack_features"] = [_take(layer, rows) for layer in deepstack]
    return taken


def _take(entries: Sequence[Tensor] | Tensor, rows: list[Tensor]) -> list[Tensor] | Tensor:
    tokens = flat_tokens(entries)
    taken = [tokens[indices] for indices in rows]
    # Where the model wants one tensor, rows of different lengths only fit as entries of a single token.
    return torch.cat(taken)[:, None] if isinstance(entries, Tensor) else taken


@contextmanager
def whole_rows_repeated(model: PreTrainedModel, row_sizes: Mapping[str, list[int]]) -> Iterator[None]:
    """Lets beam search and several return sequences repeat each row's visual tokens as a whole.

    transformers looks for the borders of the rows by matching counts of placeholders and of entries, which needs one
    entry a picture and finds none in a ragged tensor; 5.18 also interleaves several pictures of a row.

    Args:
        model: the model; it is as before on exit.
        row_sizes: per kind, how many tokens each row has that has any.
    """

    def expand(input_ids: Any, mm_encoder_output: dict[str, Any], expand_size: int = 1, **_: Any) -> dict[str, Any]:
        return {
            kind: _repeat_rows(output, row_sizes[kind], expand_size) if kind in row_sizes else output
            for kind, output in mm_encoder_output.items()
        }

    name = "_expand_multimodal_outputs"
    before: dict[str, Callable[..., Any]] = {name: model.__dict__[name]} if name in model.__dict__ else {}
    model.__dict__[name] = expand
    try:
        yield
    finally:
        del model.__dict__[name]
        model.__dict__.update(before)


def _repeat_rows(output: ModelOutput, sizes: list[int], times: int) -> ModelOutput:
    device = output["pooler_output"][0].device
    rows = torch.arange(sum(sizes), device=device).split(sizes)
    return take_tokens(output, [row for row in rows for _ in range(times)])
