"""Groups that share a budget: what a method is asked about, in which order, and whose the kept tokens are."""

import random
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from divprune import prune
from divprune.config import PruningConfig
from divprune.huggingface.encoding.items import VisualItem
from divprune.huggingface.selecting import select_items
from divprune.methods import ItemContext, Method
from tests.support.models.every_family import CASES, make_inputs


@dataclass(frozen=True)
class FirstGiven(Method):
    """Keep the first tokens of a group, and remember what came."""

    name: ClassVar[str] = "first_given"
    at: tuple[int, ...] = ()
    given: list[Tensor] = field(default_factory=list, compare=False)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.at

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        self.given.append(visual_tokens)
        return torch.arange(num_keep)


def shuffled_items(seed: int) -> tuple[list[VisualItem], dict[int, list[int]]]:
    """Items of up to three rows as an encoder gives them, and the places of the tokens of each row in its prompt.

    A token's embedding is its row and its place. The order of the items is none: images come before videos.
    """
    draw = random.Random(seed)
    items, places = [], {}
    for row in range(draw.randint(1, 3)):
        place, places[row] = draw.randint(0, 4), []
        for _ in range(draw.randint(1, 4)):
            own = range(place, place + draw.randint(1, 6))
            tokens = torch.tensor([[float(row), float(each)] for each in own])
            items.append(VisualItem("image", row, torch.tensor(list(own)), tokens, start=0))
            places[row] += own
            place = own.stop + draw.randint(1, 3)
    draw.shuffle(items)
    return items, places


@pytest.mark.parametrize("seed", range(40))
def test_a_row_shares_its_budget_in_the_order_of_the_prompt(seed: int) -> None:
    items, places = shuffled_items(seed)
    method = FirstGiven()
    selections = select_items(items, PruningConfig(method, num_keep=3, scope="sample"))
    assert [group.tolist() for group in method.given] == [
        [[row, place] for place in places[row]] for row in sorted(places)
    ]
    for row, expected in places.items():
        kept = [
            int(item.placeholders[index])
            for item, selection in zip(items, selections, strict=True)
            if item.row == row
            for index in selection.kept_indices
        ]
        assert sorted(kept) == expected[:3]


@pytest.mark.parametrize("layers", [(), (1,)], ids=["before the LLM", "inside the LLM"])
@pytest.mark.parametrize("order", [("video", "image"), ("image", "video"), ("image", "video", "image")], ids="-".join)
def test_videos_in_front_of_images_come_first(layers: tuple[int, ...], order: tuple[Any, ...]) -> None:
    """The encoder hands over all images, then all videos."""
    model = CASES["qwen2_5_vl"].build()
    row = [1, *(part for item in order for part in (item, 5))]
    with prune(model, FirstGiven(at=layers), num_keep=2, scope="sample") as pruning, torch.no_grad():
        model(**make_inputs(CASES["qwen2_5_vl"], model, [row]))
    assert [(item.modality, item.num_kept) for item in pruning.last.items] == [
        (modality, 2 if number == 0 else 0) for number, modality in enumerate(order)
    ]
