"""Every contract with vLLM: kept by this version, and refused by name when it is broken."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from vllm import LLM, EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor

import divprune.vllm_plugin
from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import SERVED_FAMILIES, contracts, pruned_overrides, qwen3, versions
from divprune.vllm_plugin.contracts import Contract
from divprune.vllm_plugin.error_middleware import RefuseFaultyRequests
from divprune.vllm_plugin.registration import register
from tests.serving.cases import CASES, expected, picture, prompts
from tests.serving.engines import SETTINGS, answers, ask
from tests.serving.reference import divprune_rule

Checkpoint = Callable[[str], Path]
EVERY = (*contracts.REGISTRATION, *contracts.MODELS, *contracts.SERVER)
PRUNING = {"keep_ratio": 0.25}


def break_contract(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the symbol as a new version might: other arguments, other fields, or gone."""
    module, _, path = contract.place.partition(":")
    owner, _ = contracts._resolved(module, path)
    name = path.rpartition(".")[2]
    if contract.positional or contract.keywords:
        changed: Any = lambda: None  # noqa: E731
        monkeypatch.setattr(owner, name, staticmethod(changed) if isinstance(owner, type) else changed)
    elif contract.fields:
        monkeypatch.setattr(owner, name, object())
    else:
        holder = next(base for base in owner.__mro__ if name in vars(base)) if isinstance(owner, type) else owner
        monkeypatch.delattr(holder, name)


@pytest.fixture
def registered_again() -> Iterator[None]:
    """Afterwards, pruned models are what they are."""
    yield
    register()


def test_this_version_keeps_them() -> None:
    assert versions.is_tested()
    assert contracts.violations(EVERY) == []


@pytest.mark.parametrize("contract", EVERY, ids=lambda contract: contract.place)
def test_a_broken_one_is_refused_by_name(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        break_contract(contract, broken)
        with pytest.raises(UnsupportedVersionError) as refused:
            contracts.require((contract,))
    said = str(refused.value)
    assert f"changed: {contract.place} " in said
    assert f"Install vllm{versions.TESTED_RANGE}" in said
    contracts.require((contract,))


def place(part: str) -> Contract:
    return next(contract for contract in EVERY if contract.place.endswith(part))


@pytest.mark.usefixtures("registered_again")
def test_the_user_who_asks_for_a_pruned_model_is_told(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("llava")
    with monkeypatch.context() as broken:
        break_contract(place("_maybe_apply_prompt_updates"), broken)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            register()
        with pytest.raises(ValueError, match=r"_maybe_apply_prompt_updates must take \(mm_items, mm_res\)"):
            LLM(str(folder), hf_overrides=pruned_overrides(folder, **PRUNING), **SETTINGS)


@pytest.mark.usefixtures("registered_again")
def test_who_serves_unpruned_models_is_left_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["llava"]
    asked = prompts(case)[:1]
    with monkeypatch.context() as broken:
        break_contract(place("parallel_state:GroupCoordinator.broadcast"), broken)
        register()
        assert answers(ask(engine("llava", None, **case.settings), asked))


@pytest.mark.parametrize("part", ["ModelRegistry.register_model", "config:MODELS_CONFIG_MAP"])
@pytest.mark.usefixtures("registered_again")
def test_where_nothing_can_be_registered_there_is_a_warning(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        break_contract(place(part), broken)
        with pytest.warns(UserWarning, match=f"{part} .*Install vllm"):
            register()


@pytest.mark.parametrize("family", SERVED_FAMILIES, ids=lambda family: family.model)
def test_models_are_refused_before_they_are_imported(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_contract(place("Qwen3VLMultiModalProcessor.get_video_repl"), monkeypatch)
    with pytest.raises(UnsupportedVersionError, match="get_video_repl must take"):
        getattr(divprune.vllm_plugin, family.model)


def test_the_servers_middleware_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    break_contract(place("create_error_response"), monkeypatch)
    with pytest.raises(UnsupportedVersionError, match="create_error_response must take"):
        RefuseFaultyRequests(None)


@pytest.mark.parametrize(("version", "count"), [("0.40.1", 1), (None, 0)])
def test_beyond_the_range_an_engine_warns_once(
    version: str | None, count: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("llava")
    versions._warn.cache_clear()
    if version is not None:
        monkeypatch.setattr(versions, "installed_version", lambda: version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            EngineArgs(str(folder), hf_overrides=pruned_overrides(folder, **PRUNING), **SETTINGS).create_engine_config()
        EngineArgs(
            str(folder), hf_overrides=pruned_overrides(folder, **PRUNING, allow_untested_vllm=True), **SETTINGS
        ).create_engine_config()
    assert sum("divprune was tested with" in str(warning.message) for warning in caught) == count


def test_arguments_by_other_names(engine: Any, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version may call the processor's arguments otherwise, and its families may give them by place."""
    case = CASES["llava"]
    llm = engine("llava", PRUNING, **case.settings)
    main, apply = BaseMultiModalProcessor._apply_hf_processor_main, BaseMultiModalProcessor.apply

    def renamed(self: Any, media: Any, arguments: Any) -> Any:
        return main(self, media, arguments)

    def applied(self: Any, clock: Any, request: Any) -> Any:
        return apply(self, request, clock)

    monkeypatch.setattr(BaseMultiModalProcessor, "_apply_hf_processor_main", renamed)
    monkeypatch.setattr(BaseMultiModalProcessor, "apply", applied)
    processor = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.vllm_config.model_config)
    pruned = type(processor)
    own_main, own_apply = pruned._apply_hf_processor_main, pruned.apply
    monkeypatch.setattr(
        pruned,
        "_apply_hf_processor_main",
        lambda self, mm_items, hf_kwargs: own_main(self, arguments=hf_kwargs, media=mm_items),
    )
    monkeypatch.setattr(pruned, "apply", lambda self, inputs, timing_ctx: own_apply(self, timing_ctx, inputs))
    items = processor.info.parse_mm_data({"image": [picture(0)]})
    ids = processor("word3 <image>", items)["prompt_token_ids"]
    text, media = "word3 <image>", {"image": [picture(0)]}
    assert len(ids) == expected(case, checkpoint("llava"), [(text, media)], divprune_rule(0.25))[0][0]


def test_a_version_without_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(qwen3.qwen3_vl, qwen3.FACTOR)
    with qwen3.room_for_dropped_tokens():
        assert not hasattr(qwen3.qwen3_vl, qwen3.FACTOR)
    assert not hasattr(qwen3.qwen3_vl, qwen3.FACTOR)


def test_too_short_tables_of_angles(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that ignores the factor, or calls it otherwise, would answer wrongly from long prompts."""
    folder = checkpoint("qwen3_vl")
    monkeypatch.setattr(qwen3, "room_for_dropped_tokens", nullcontext)
    with pytest.raises(UnsupportedVersionError, match=r"must have 16384 rows, found 4096 in .* Install vllm"):
        LLM(str(folder), hf_overrides=pruned_overrides(folder, **PRUNING), **SETTINGS)
