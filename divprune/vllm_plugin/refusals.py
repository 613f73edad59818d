"""What cannot be served pruned, refused when the server starts, with the reason."""

from typing import Any

import torch

from divprune.methods import ItemContext, Method
from divprune.methods.checks import checked_selection
from divprune.methods.item_context import Modality
from divprune.methods.merging import MergingMethod
from divprune.vllm_plugin.families import ServedFamily, served_family
from divprune.vllm_plugin.settings import REQUEST_KEYS, PruningSettings


def refuse_unsupported(vllm_config: Any) -> PruningSettings:
    """Check the configuration of a pruned model.

    Args:
        vllm_config: vLLM's `VllmConfig`.

    Returns:
        The settings that it carries.

    Raises:
        ValueError: It asks for something that cannot be served pruned.
    """
    model_config = vllm_config.model_config
    settings = PruningSettings.of(model_config.hf_config)
    for is_asked, reason in _modes(vllm_config):
        if is_asked:
            raise ValueError(f"a pruned model cannot be served with {reason}")
    family = served_family(model_config.architecture)
    if family is None:
        raise ValueError(f"no pruned model for architecture {model_config.architecture!r}")
    multimodal = model_config.multimodal_config
    served = tuple(kind for kind in family.modalities if multimodal.get_limit_per_prompt(kind) > 0)
    refuse_method(settings.method_object(), family, served)
    return settings


def _modes(vllm_config: Any) -> list[tuple[bool, str]]:
    """Return whether each mode is asked for, and why it cannot be served."""
    parallel, multimodal = vllm_config.parallel_config, vllm_config.model_config.multimodal_config
    private = sorted(set(multimodal.mm_processor_kwargs or {}) & set(REQUEST_KEYS))
    return [
        (
            parallel.pipeline_parallel_size > 1,
            "--pipeline-parallel-size above 1: later stages would not see where the kept tokens are",
        ),
        (
            parallel.prefill_context_parallel_size > 1,
            "--prefill-context-parallel-size above 1: ranks would not see where each other's kept tokens are",
        ),
        (
            parallel.use_ubatching,
            "dual batch overlap (--enable-dbo): it splits batches after the positions of the kept tokens are written",
        ),
        (
            vllm_config.speculative_config is not None,
            "speculative decoding: a drafter would have to read the kept tokens alike",
        ),
        (
            vllm_config.ec_transfer_config is not None,
            "--ec-transfer-config: encoder outputs are not tested to travel between engines with their positions",
        ),
        (multimodal.is_multimodal_pruning_enabled(), "--video-pruning-rate: vLLM would prune a second time"),
        (multimodal.enable_mm_embeds, "--enable-mm-embeds: embeddings that come from outside are not chosen from"),
        (
            vllm_config.compilation_config.cudagraph_mm_encoder,
            "cudagraph_mm_encoder: CUDA graphs of the vision encoder leave out the choice of tokens",
        ),
        (
            bool(private),
            f'{" and ".join(private)} in --mm-processor-kwargs: give the server\'s own in the "divprune" entry of '
            "--hf-overrides",
        ),
    ]


def refuse_method(method: Method, family: ServedFamily, modalities: tuple[Modality, ...]) -> None:
    """Check that a method can choose from nothing but the encoder's output.

    Raises:
        ValueError: It cannot, or not for one of the modalities.
    """
    known = {"grid"} if family.has_grid else set()
    unknown = sorted(method.needs - known)
    reason = ""
    if method.layers:
        reason = "acts inside the LLM, where vLLM keeps all tokens that a prompt began with"
    elif unknown:
        reason = f"needs {', '.join(unknown)}, which vLLM does not hand over for {family.architecture}"
    elif method.finds_count or method.may_keep_fewer or isinstance(method, MergingMethod):
        reason = "finds its own count, and vLLM needs the prompt's length before the vision encoder runs"
    for kind in modalities:
        reason = reason or _trial(method, kind, family.has_grid)
    if reason:
        raise ValueError(f"method {method.name!r} cannot be served: it {reason}; `divprune methods` lists others")


def _trial(method: Method, kind: Modality, has_grid: bool) -> str:
    """Let the method choose once; some refuse a kind of item."""
    tokens = torch.eye(8)
    try:
        checked_selection(method, tokens, 2, ItemContext(modality=kind, grid=(2, 2, 2) if has_grid else None))
    except ValueError as error:
        return f"cannot choose from this model's {kind}s ({error})"
    return ""
