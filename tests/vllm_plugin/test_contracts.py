"""A vLLM that changed: contracts, the range of versions, arguments by other names. vLLM is not needed here."""

import re
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from divprune.budget import Budget
from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import contracts, versions
from divprune.vllm_plugin.contracts import Contract
from divprune.vllm_plugin.given import BUDGET, Given, holds_budget
from divprune.vllm_plugin.settings import as_integers

ROOT = Path(__file__).parents[2]


class Processor:
    """Stands for a class of vLLM."""

    limits: int

    def apply(self, inputs: Any, timing_ctx: Any) -> None: ...

    def renamed(self, requests: Any, clock: Any) -> None: ...

    def grown(self, inputs: Any, timing_ctx: Any, new: Any = None) -> None: ...

    def demanding(self, inputs: Any, timing_ctx: Any, new: Any) -> None: ...

    def shrunk(self, inputs: Any) -> None: ...

    @staticmethod
    def build(*, info: Any, dummy_inputs: Any) -> None: ...

    @classmethod
    def make(cls, inputs: Any) -> None: ...


@pytest.fixture(autouse=True)
def vllm_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm_stand_in")
    module.Processor, module.processor = Processor, Processor()
    monkeypatch.setitem(sys.modules, "vllm_stand_in", module)
    monkeypatch.setattr(contracts, "installed_version", lambda: "0.40.1")


def violation(name: str, *arguments: str, **settings: Any) -> str:
    return Contract(f"vllm_stand_in:{name}", arguments, **settings).violation()


TWO = ("inputs", "timing_ctx")


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("name", ["apply", "renamed", "grown"])
def test_kept(name: str, is_ours: bool) -> None:
    """Names of what is given by place do not matter, nor does what may be left out."""
    assert violation(f"Processor.{name}", *TWO, is_ours=is_ours) == ""
    assert violation(f"processor.{name}", *TWO, is_ours=is_ours) == ""


def test_what_vllm_gives_on_top_is_handed_on() -> None:
    assert violation("Processor.demanding", *TWO, is_ours=True) == ""
    assert "must take (inputs, timing_ctx), its signature is now (self, inputs, timing_ctx, new)" in violation(
        "Processor.demanding", *TWO
    )


def test_static_and_class_methods() -> None:
    assert violation("Processor.build", keywords=("info", "dummy_inputs")) == ""
    assert violation("Processor.make", "inputs") == ""
    assert "must take (inputs, info=)" in violation("Processor.make", "inputs", keywords=("info",))


def test_changed_signatures_are_named() -> None:
    for is_ours in (False, True):
        found = violation("Processor.shrunk", *TWO, is_ours=is_ours)
        assert found.startswith("vllm_stand_in:Processor.shrunk must take (inputs, timing_ctx), its signature is now")
    assert "must take (info=, other=)" in violation("Processor.build", keywords=("info", "other"))


def test_missing_symbols_are_named() -> None:
    assert "vllm_stand_in:Processor.gone is not there" in violation("Processor.gone")
    assert "vllm_stand_in:Gone.apply is not there" in violation("Gone.apply")
    assert "no_such_module:Gone is not there (No module named" in Contract("no_such_module:Gone").violation()


def test_fields_may_be_annotated_only() -> None:
    assert violation("Processor", fields=("limits", "apply")) == ""
    assert (
        violation("Processor", fields=("limits", "places", "sizes")) == "vllm_stand_in:Processor has no places, sizes"
    )


def test_a_refusal_names_all_that_changed_and_the_remedy() -> None:
    broken = (Contract("vllm_stand_in:Processor.gone"), Contract("vllm_stand_in:Processor.apply", ("inputs",)))
    with pytest.raises(UnsupportedVersionError) as refused:
        contracts.require((Contract("vllm_stand_in:Processor.make", ("inputs",)), *broken))
    said = str(refused.value)
    assert "vLLM 0.40.1" in said
    assert "Processor.gone is not there" in said
    assert "Processor.apply must take (inputs)" in said
    assert "Processor.make" not in said
    assert f"Install vllm{versions.TESTED_RANGE}" in said
    assert contracts.violations((Contract("vllm_stand_in:Processor.make", ("inputs",)),)) == []


def test_no_place_is_listed_twice() -> None:
    every = (*contracts.REGISTRATION, *contracts.MODELS, *contracts.SERVER)
    assert len(set(every)) == len(every)
    assert all(re.fullmatch(r"vllm[\w.]*:[\w.]+", contract.place) for contract in every)


@pytest.fixture
def warned_of_nothing() -> Iterator[None]:
    versions._warn.cache_clear()
    yield
    versions._warn.cache_clear()


@pytest.mark.parametrize("version", ["0.32.0", "0.32.4", "0.33.0", "0.33.1.dev5", "0.33.0rc1"])
@pytest.mark.usefixtures("warned_of_nothing")
def test_inside_the_range_is_silent(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda: version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.warn_if_untested(False)
    assert versions.is_tested()


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "0.40.1", "1.0", "dev"])
@pytest.mark.usefixtures("warned_of_nothing")
def test_beyond_the_range_is_one_warning(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda: version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        versions.warn_if_untested(True)
        assert not caught
        for _ in range(3):
            versions.warn_if_untested(False)
    (warning,) = caught
    assert f"tested with vllm>=0.32,<0.34, this is {version}" in str(warning.message)
    assert '"allow_untested_vllm": true' in str(warning.message)


def test_the_range_is_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["vllm"] == [f"vllm{versions.TESTED_RANGE}"]


CARRIER = {"fps": 2, BUDGET: ["divprune", *as_integers(Budget(num_keep=9))]}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("items", CARRIER), {}),
        (("items",), {"hf_kwargs": CARRIER}),
        ((), {"hf_processor_mm_kwargs": CARRIER, "mm_items": "items"}),
    ],
    ids=["by place", "by name", "by another name"],
)
def test_the_budget_is_found_whatever_it_is_called(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    others, named, budget = Given(args, kwargs).without_budget()
    assert budget == Budget(num_keep=9)
    assert [*others, *named.values()].count({"fps": 2}) == 1
    assert (len(others), named.keys()) == (len(args), kwargs.keys())
    assert BUDGET in CARRIER


def test_without_a_budget_there_is_no_pruning() -> None:
    with pytest.raises(
        TypeError, match=r"must hand over processor arguments that carry the budget, got \['str', 'dict'"
    ):
        Given(("items", {"fps": 2}), {}).without_budget()
    assert not holds_budget("divprune")
