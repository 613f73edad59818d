"""The built-in methods and their registry."""

from importlib.metadata import EntryPoint

import pytest
import torch

from divprune.errors import UnknownMethodError
from divprune.methods import (
    DivPrune,
    ItemContext,
    Method,
    RandomTokens,
    UniformGrid,
    available_methods,
    get_method,
    registry,
)
from divprune.selection.reference import reference_select

ROWS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
IMAGE = ItemContext()


@pytest.mark.parametrize("method", [DivPrune(), RandomTokens(), UniformGrid()])
@pytest.mark.parametrize("context", [IMAGE, ItemContext(grid=(1, 6, 10)), ItemContext("video", 1, (3, 4, 5))])
def test_every_method_returns_as_many_distinct_tokens_as_asked_for(method, context):
    for num_keep in range(1, 61):
        picks = method.select(ROWS, num_keep, context)
        assert picks.dtype == torch.int64
        assert len(set(picks.tolist())) == num_keep
        assert set(picks.tolist()) <= set(range(60))


@pytest.mark.parametrize("metric", ["cosine", "l1", "l2"])
def test_divprune_is_the_greedy_selection(metric):
    picks = DivPrune(metric=metric).select(ROWS, 12, IMAGE)
    assert picks.tolist() == reference_select(ROWS, 12, metric).tolist()


def test_divprune_as_published_is_asked_for_by_name():
    method = get_method("divprune:distance_dtype=as-published")
    rows = torch.tensor([[1.0, 1 / 64], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).half()
    # Worked out in tests/selection/test_as_published.py.
    assert method.select(rows, 4, IMAGE).tolist() == [3, 0, 2]
    assert (method.may_keep_fewer, method.finds_count, DivPrune().may_keep_fewer) == (True, False, False)
    assert DivPrune(layer=2, distance_dtype="as-published").layers == (2,)


@pytest.mark.parametrize("other", [{"metric": "l2"}, {"refine": True}, {"min_distance": 0.1}])
def test_divprune_as_published_knows_the_paper_s_rule_alone(other):
    name, value = next(iter(other.items()))
    with pytest.raises(ValueError, match=f"distance_dtype must be 'full' beside {name}={value!r}, got 'as-published'"):
        DivPrune(distance_dtype="as-published", **other)
    with pytest.raises(ValueError, match="distance_dtype must be 'full' or 'as-published', got 'float16'"):
        DivPrune(distance_dtype="float16")


def test_random_draws_differ_by_seed_sample_and_item_and_agree_on_reruns():
    draws = [
        method.select(ROWS, 12, context).tolist()
        for method, context in [
            (RandomTokens(), IMAGE),
            (RandomTokens(seed=1), IMAGE),
            (RandomTokens(), ItemContext(index=1)),
            (RandomTokens(), ItemContext(seed=1)),
        ]
    ]
    assert len({tuple(draw) for draw in draws}) == 4
    assert RandomTokens().select(ROWS, 12, IMAGE).tolist() == draws[0]
    assert RandomTokens().select(ROWS, 5, IMAGE).tolist() == draws[0][:5]


def test_uniform_grid_spreads_over_rows_columns_and_frames():
    picks = UniformGrid().select(torch.zeros(2 * 24 * 24, 4), 128, ItemContext("video", 0, (2, 24, 24)))
    frame, place = picks // 576, picks % 576
    assert frame.bincount().tolist() == [64, 64]
    assert (place // 24).unique().numel() == (place % 24).unique().numel() == 8


def test_uniform_grid_falls_back_to_even_steps():
    assert UniformGrid().select(torch.zeros(11, 4), 3, ItemContext(grid=(1, 2, 2))).tolist() == [0, 5, 10]
    assert UniformGrid().select(torch.zeros(11, 4), 1, IMAGE).tolist() == [0]


def test_methods_are_found_by_name_with_parameters():
    assert get_method("divprune") == DivPrune()
    assert get_method("random:seed=3") == RandomTokens(seed=3)
    assert get_method(" divprune : metric = l2 ") == DivPrune(metric="l2")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "divprun",
            UnknownMethodError,
            "no method named 'divprun' among \\d+; did you mean 'divprune'",
        ),
        ("", UnknownMethodError, "no method named ''"),
        ("random:sed=3", ValueError, "has no parameter 'sed'; there is seed; did you mean 'seed'"),
        ("uniform:seed=3", ValueError, "has no parameter 'seed'; there is none"),
        ("random:seed=x", ValueError, "parameter 'seed' of method 'random' must be of type int, got 'x'"),
        ("random:seed", ValueError, "needs a value: seed=..."),
        ("random:seed=-1", ValueError, "seed must be at least 0, got -1"),
        ("divprune:metric=dot", ValueError, "metric must be one of 'cosine', 'l1', 'l2', got 'dot'"),
    ],
)
def test_unknown_names_and_parameters_list_the_choices(spec, error, message):
    with pytest.raises(error, match=message):
        get_method(spec)


WORDS = ("yes", "1e999", "nan", "inf", "x", "TRUE", "", "0", "-1", "=", "None", "9" * 5000)


def refusal(spec):
    """What is said against it; empty if it is taken."""
    try:
        assert isinstance(get_method(spec), Method)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("method", available_methods(), ids=lambda info: info.name)
def test_any_value_of_any_parameter_is_taken_or_refused_by_name(method):
    for parameter, default in method.parameters.items():
        said = {word: refusal(f"{method.name}:{parameter}={word}") for word in WORDS}
        if type(default) in (bool, int, float):
            assert all(len(text) < 300 and "\n" not in text for text in said.values())
        if type(default) is bool:
            assert "must be of type bool (true or false), got 'yes'" in said["yes"]
            assert not said["TRUE"]


def test_third_parties_add_methods_by_entry_point(monkeypatch):
    entry = EntryPoint("even", "divprune.methods.uniform_grid:UniformGrid", registry.ENTRY_POINT_GROUP)
    broken = EntryPoint("broken", "divprune.methods.item_context:ItemContext", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry, broken])
    assert get_method("even") == UniformGrid()
    with pytest.raises(TypeError, match="must be a subclass of"):
        get_method("broken")


def test_metadata_names_the_paper():
    methods = {info.name: info for info in available_methods()}
    assert {method.name for method in registry.built_in()} <= set(methods)
    assert methods["divprune"].paper.year == 2025
    assert methods["divprune"].paper.url.endswith("2503.02175")
    assert methods["divprune"].parameters == {
        "metric": "cosine", "layer": 0, "refine": False, "min_distance": 0.0, "distance_dtype": "full",
    }  # fmt: skip
    assert methods["random"].paper is None
