"""Methods that merge before the LLM and drop more inside it: how many, and which, by hand."""

from statistics import fmean

import pytest
import torch

from divprune.budget import Budget
from divprune.efficiency.schedule import schedule_of
from divprune.methods import ItemContext, get_method
from divprune.methods.flashvid import FlashVID
from divprune.methods.holitom import HoliTom
from divprune.methods.prunevid import PruneVid
from divprune.methods.two_stages import TwoStages
from divprune.methods.vscan import VScan
from tests.methods.test_video_methods import rows

BOTH = (FlashVID(layer=20), HoliTom(layer=18), PruneVid(layer=10), VScan(layer=16))


def test_without_a_layer_there_is_one_stage() -> None:
    for method in (FlashVID(), HoliTom(), PruneVid(), VScan()):
        assert method.layers == ()
        assert method.stages(64, 576) == ((0, 64),)


@pytest.mark.parametrize(
    ("method", "num_keep", "stages"),
    [
        # 1.25 x 160 = 200 before the LLM, of which 0.3 stay; 1.25 x 50 = 62.5, rounded up, of which 18.9, rounded down.
        (BOTH[0], 160, ((0, 200), (20, 60))),
        (BOTH[0], 50, ((0, 63), (20, 18))),
        (BOTH[1], 160, ((0, 160), (18, 80))),
        (BOTH[1], 1, ((0, 1), (18, 1))),
        (BOTH[2], 160, ((0, 160), (10, 64))),
        # 96 before the LLM and 32 from layer 16 on are 64 on average over 32 layers, as in the paper.
        (BOTH[3], 64, ((0, 96), (16, 32))),
        # No more than there are; and all, if all are asked for.
        (BOTH[3], 500, ((0, 576), (16, 192))),
        (BOTH[3], 576, ((0, 576), (16, 576))),
    ],
)
def test_both_stages_follow_from_the_callers_number(
    method: TwoStages, num_keep: int, stages: tuple[tuple[int, int], ...]
) -> None:
    assert method.stages(num_keep, 576) == stages
    assert schedule_of(method, Budget(num_keep=num_keep), 576).drops == stages


def test_the_papers_budgets_are_means_over_the_layers() -> None:
    assert fmean(schedule_of(BOTH[3], Budget(num_keep=64), 576).counts(32)) == 64
    # 20 layers of 1.25 and 8 of 0.375.
    assert fmean(schedule_of(BOTH[0], Budget(keep_ratio=0.25), 6400).counts(28)) == 1600


def test_a_stage_needs_what_it_reads() -> None:
    for method in BOTH:
        assert method.needs_at(0) == method.needs
        assert method.needs_at(method.layer) == method.layer_needs
        assert not method.needs & method.layer_needs


INSIDE = ItemContext(
    layer=18, attention=torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.2, 0.1, 0.3, 0.4]]),  # means .3, .1, .3, .3
    text_attention=torch.tensor([[[0.1, 0.5, 0.2, 0.1], [0.4, 0.1, 0.2, 0.3]], [[0.1, 0.3, 0.2, 0.1], [0.2, 0.1, 0.2,
    0.3]]]),
)  # fmt: skip
STATES = torch.tensor([[1.0, 0.0], [0.1, 1.0], [0.0, 1.0], [0.9, 0.1]], dtype=torch.float64)


def test_the_most_attended_stay_as_they_are() -> None:
    for method in (BOTH[0], BOTH[3]):
        assert rows(method.merge(STATES, 2, INSIDE)) == {0: {0: 1.0}, 2: {2: 1.0}}


def test_prunevid_asks_the_word_that_attends_most() -> None:
    # On average over the heads: .1, .4, .2, .1 of the first word and .3, .1, .2, .3 of the second; largest .3, .4, .2,
    # .3.
    assert rows(BOTH[2].merge(STATES, 2, INSIDE)) == {0: {0: 1.0}, 1: {1: 1.0}}


def test_holitom_merges_the_least_attended_into_the_most_similar() -> None:
    assert rows(BOTH[1].merge(STATES, 2, INSIDE)) == {0: {0: 0.5, 3: 0.5}, 2: {1: 0.5, 2: 0.5}}


@pytest.mark.parametrize("name", ["flashvid", "holitom", "prunevid", "vscan"])
def test_layers_below_zero_are_refused(name: str) -> None:
    assert get_method(f"{name}:layer=3").layers == (0, 3)
    with pytest.raises(ValueError, match="layer must be at least 0, got -1"):
        get_method(f"{name}:layer=-1")
