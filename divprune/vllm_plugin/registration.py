"""The entry point that every process of vLLM calls when it starts."""

import warnings
from typing import Any

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin import contracts
from divprune.vllm_plugin.families import SERVED_FAMILIES
from divprune.vllm_plugin.owner_watchdog import watch_owner
from divprune.vllm_plugin.versions import warn_if_untested


def register() -> None:
    """Tell vLLM the pruned architectures. Models are imported when one is asked for; a second call changes nothing.

    Where vLLM breaks a contract, the architectures are refused when one is asked for: who serves unpruned models only
    is not disturbed by a plugin that is merely installed.
    """
    changed = contracts.violations()
    if contracts.violations(contracts.REGISTERING):
        # There is no way left to be asked.
        warnings.warn(contracts.refusal(changed), stacklevel=1)
    elif changed:
        _refuse(contracts.refusal(changed))
    else:
        _offer()
    watch_owner()


def _offer() -> None:
    from vllm import ModelRegistry

    for family in SERVED_FAMILIES:
        # By way of the package, whose files vLLM takes together as the key of what it remembers of a class.
        ModelRegistry.register_model(family.pruned_architecture, f"divprune.vllm_plugin:{family.model}")
    _check_at_startup()


def _check_at_startup() -> None:
    """Have configurations of pruned models checked before any worker starts.

    Workers check too, but what they refuse is buried in their logs.
    """
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    class PrunedModelConfig(VerifyAndUpdateConfig):
        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            from divprune.vllm_plugin.positions import keep_positions
            from divprune.vllm_plugin.refusals import refuse_unsupported

            settings = refuse_unsupported(vllm_config)
            keep_positions(vllm_config.model_config, settings)
            warn_if_untested(settings.allow_untested_vllm)

    for family in SERVED_FAMILIES:
        MODELS_CONFIG_MAP[family.pruned_architecture] = PrunedModelConfig


def _refuse(message: str) -> None:
    """Have each pruned architecture answer with a message instead of a model.

    vLLM asks for a model's class, then for its configuration, and the second is where it tells the user what went
    wrong. So the class is one that can be looked at, whichever symbols have changed.
    """
    from torch import Tensor, nn
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    class RefusedModel(nn.Module):
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            raise UnsupportedVersionError(message)

        # What vLLM knows a text model by.
        def embed_input_ids(self, input_ids: Tensor) -> Tensor:
            raise UnsupportedVersionError(message)

        def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
            raise UnsupportedVersionError(message)

        def compute_logits(self, hidden_states: Tensor) -> Tensor:
            raise UnsupportedVersionError(message)

    class RefusedModelConfig(VerifyAndUpdateConfig):
        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            raise UnsupportedVersionError(message)

    for family in SERVED_FAMILIES:
        ModelRegistry.register_model(family.pruned_architecture, RefusedModel)
        MODELS_CONFIG_MAP[family.pruned_architecture] = RefusedModelConfig
