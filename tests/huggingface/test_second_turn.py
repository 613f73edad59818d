"""A second turn on the cache that a pruned first turn filled, for every family."""

import pytest
import transformers

from divprune import DivPrune, prune
from divprune.errors import PruningError
from tests.support.conversation import by_hand, second_turn
from tests.support.float64 import is_different, is_rounding
from tests.support.models.every_family import CASES, Row, built, make_inputs
from tests.support.subject import RATIO, divprune_rule, first_tokens, positions_of
from tests.support.turns import FIRST, IMAGES, error_of, largest_error, skip_where_transformers_is_wrong

TEXT: list[Row] = [[31, 32, 33], [41, 42, 43]]
UNEVEN: list[Row] = [[31, 32, 33], [41, 42]]


# Their sliding windows, states, convolutions or count of positions would take in the padding between two turns.
ROW_BY_ROW = {
    "aya_vision",
    "cohere2_vision",
    "cohere_compass",
    "dots3_note",
    "exaone4_5",
    "gemma4",
    "gemma4_unified",
    "glm5_next",
    "hyperclovax_vision_v2",
    "hy_v4_vl",
    "inkling2",
    "inkling2_loop",
    "lfm2_vl",
    "lfm3_vl",
    "minicpm_ocr",
    "minicpmv4_6",
    "minicpmv4_7",
    "mistral_large4",
    "muse_glimmer",
    "muse_spark",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen4_exp",
    "step3p7",
    "unlimited_ocr",
}
# Pictures on its kept cache are refused, see below.
FRESH_ONLY = {"hunyuan_vl"}
TURNS = [
    pytest.param(name, asked, id=f"{name}-{kind}")
    for name in CASES
    for kind, asked in (("text", TEXT), ("image", IMAGES))
    if asked is TEXT or name not in FRESH_ONLY
]


def batches(name: str, asked: list[Row]) -> list[tuple[list[Row], list[Row]]]:
    if name in ROW_BY_ROW and asked is IMAGES:
        return [([first], [second]) for first, second in zip(FIRST, asked, strict=True)]
    return [(FIRST, asked)]


@pytest.mark.parametrize("new_ids_only", [False, True], ids=["full ids", "new ids"])
@pytest.mark.parametrize(("name", "asked"), TURNS)
def test_a_second_turn_equals_the_conversation_in_one_go(name: str, asked: list[Row], new_ids_only: bool) -> None:
    skip_where_transformers_is_wrong(name, asked)
    case = CASES[name]
    model = built(name)
    for positions in positions_of(name)[:1] if new_ids_only else positions_of(name):
        compact = positions == "compact"
        for rows, new_rows in batches(name, asked):
            with prune(model, DivPrune(), keep_ratio=RATIO, positions=positions) as pruning:
                talk = second_turn(case, model, pruning, rows, new_rows, new_ids_only=new_ids_only)
            expected = list(by_hand(talk, model, divprune_rule(), compact))
            assert is_rounding(error_of(expected, talk, model))
            assert is_different(largest_error(talk, model, first_tokens, compact))
            for number, row in enumerate(expected):
                assert talk.keep_masks[1][number].nonzero().squeeze(-1).tolist() == row.columns


@pytest.mark.parametrize("name", sorted({*ROW_BY_ROW, "inkling_mm_model"}))
def test_padding_between_turns_is_refused_where_it_would_be_seen(name: str) -> None:
    case = CASES[name]
    model = built(name)
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        for asked in [UNEVEN] if name == "inkling_mm_model" else [IMAGES, UNEVEN]:  # its pictures are of one size
            with pytest.raises(PruningError, match="all rows of a batch must grow by equally many tokens"):
                second_turn(case, model, pruning, FIRST, asked)
        model.generate(**make_inputs(case, model, FIRST), max_new_tokens=1)


def test_padding_between_turns_is_refused_where_all_layers_have_a_window() -> None:
    """Mistral 7B names no layer types: a window in its configuration holds for every layer."""
    case = CASES["mistral3"]
    model = case.build()
    model.config.get_text_config().sliding_window = 20
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        with pytest.raises(PruningError, match="this model has layers of type sliding_attention"):
            second_turn(case, model, pruning, FIRST, UNEVEN)
        second_turn(case, model, pruning, FIRST, TEXT)


@pytest.mark.parametrize("name", sorted(FRESH_ONLY))
def test_new_pictures_are_refused_where_a_cache_cannot_number_them(name: str) -> None:
    case = CASES[name]
    model = case.build()
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning:
        for rows in (FIRST, TEXT):
            with pytest.raises(PruningError, match="it numbers the images of a call from 0"):
                second_turn(case, model, pruning, rows, IMAGES)
        model.generate(**make_inputs(case, model, FIRST), max_new_tokens=1)


@pytest.mark.skipif(not transformers.__version__.startswith("5.18."), reason="right in later versions")
def test_new_pictures_are_refused_where_transformers_misplaces_them() -> None:
    model = CASES["gemma3"].build()
    wrongly = pytest.raises(PruningError, match="places the images of 'gemma3' wrongly")
    with prune(model, DivPrune(), keep_ratio=RATIO) as pruning, wrongly:
        second_turn(CASES["gemma3"], model, pruning, FIRST, IMAGES)
