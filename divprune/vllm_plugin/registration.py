"""The entry point that every process of vLLM calls when it starts."""

from typing import Any

from divprune.vllm_plugin.families import FAMILIES
from divprune.vllm_plugin.orphans import watch_owner
from divprune.vllm_plugin.versions import is_tested


def register() -> None:
    """Tell vLLM the pruned architectures. Models are imported when one is asked for; a second call changes nothing."""
    from vllm import ModelRegistry

    for family in FAMILIES:
        ModelRegistry.register_model(family.pruned_architecture, f"divprune.vllm_plugin.served:{family.model}")
    if is_tested():
        _check_at_startup()
    watch_owner()


def _check_at_startup() -> None:
    """Have configurations of pruned models checked before any worker starts.

    Workers check too, but what they refuse is buried in their logs.
    """
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    class PrunedModelConfig(VerifyAndUpdateConfig):
        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            from divprune.vllm_plugin.refusals import refuse_unsupported

            refuse_unsupported(vllm_config)

    for family in FAMILIES:
        MODELS_CONFIG_MAP[family.pruned_architecture] = PrunedModelConfig
