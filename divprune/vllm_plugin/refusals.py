"""What cannot be served pruned, refused when the server starts, with the reason."""

from typing import Any, get_args

import torch

from divprune.methods import ItemContext, Method
from divprune.methods.checks import checked_selection
from divprune.methods.grids import pieces_of_grid
from divprune.methods.item_context import QUERY_NEEDS, Modality, Piece
from divprune.vllm_plugin.families import GRID_NEEDS, SERVED_FAMILIES, TOWER_NEEDS, ServedFamily, served_family
from divprune.vllm_plugin.settings import REQUEST_KEYS, PruningSettings
from divprune.vllm_plugin.vision_layers import layers_read, why_unreadable


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
    family = served_family_of(model_config)
    method = settings.method_object()
    refuse_method(method, family, allowed_modalities(model_config))
    refuse_tower(method, family, model_config.hf_config)
    for is_asked, reason in _tower_modes(vllm_config):
        if is_asked and method.needs & TOWER_NEEDS:
            raise ValueError(f"method {method.name!r} cannot be served with {reason}")
    return settings


def served_family_of(model_config: Any) -> ServedFamily:
    """Return the family of a pruned model.

    Raises:
        ValueError: None is served by its architecture.
    """
    family = served_family(model_config.architecture)
    if family is None:
        raise ValueError(f"no pruned model for architecture {model_config.architecture!r}")
    return family


def allowed_modalities(model_config: Any) -> tuple[Modality, ...]:
    """Return what a prompt may show, of what is pruned of the model's family."""
    limits = model_config.multimodal_config
    return tuple(
        modality for modality in served_family_of(model_config).modalities if limits.get_limit_per_prompt(modality) > 0
    )


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
        (multimodal.enable_mm_embeds, "--enable-mm-embeds: embeddings that come from outside are not selected from"),
        (
            vllm_config.compilation_config.cudagraph_mm_encoder,
            "cudagraph_mm_encoder: CUDA graphs of the vision encoder leave out the selection of tokens",
        ),
        (
            bool(private),
            f'{" and ".join(private)} in --mm-processor-kwargs: give the server\'s own in the "divprune" entry of '
            "--hf-overrides",
        ),
    ]


def _tower_modes(vllm_config: Any) -> list[tuple[bool, str]]:
    """Return the modes in which the vision tower cannot be read."""
    return [
        (
            vllm_config.compilation_config.compile_mm_encoder,
            "compile_mm_encoder: what is read in the vision tower's layers would be left out of the compiled code",
        ),
        (
            vllm_config.model_config.multimodal_config.mm_encoder_tp_mode == "data",
            "--mm-encoder-tp-mode data: each rank would see the attention of its own images alone",
        ),
    ]


def refuse_method(method: Method, family: ServedFamily, modalities: tuple[Modality, ...]) -> None:
    """Check that a method can select from an item by nothing but what the vision encoder makes of it.

    Raises:
        ValueError: It cannot, or not for one of the modalities.
    """
    reason = next(filter(None, (why_refused(method, family, modality) for modality in modalities)), "")
    if reason:
        raise ValueError(f"method {method.name!r} cannot be served: it {reason}; `divprune methods` lists others")


def served_with(method: Method) -> dict[Modality, tuple[str, ...]]:
    """Return the architectures that are served with a method, for each modality that any is."""
    served: dict[Modality, tuple[str, ...]] = {}
    for modality in get_args(Modality):
        families = [family for family in SERVED_FAMILIES if modality in family.modalities]
        names = tuple(family.architecture for family in families if not why_refused(method, family, modality))
        if names:
            served[modality] = names
    return served


def refuse_tower(method: Method, family: ServedFamily, config: Any) -> None:
    """Check that the vision tower of a model can be read, and has the layers that the method reads.

    Args:
        method: The method.
        family: The model's family.
        config: The model's.

    Raises:
        ValueError: It cannot, or has not.
    """
    needs = sorted(method.needs & (TOWER_NEEDS | GRID_NEEDS)) if family.reads_tower else []
    reason = why_unreadable(config) if needs else ""
    if reason:
        raise ValueError(
            f"method {method.name!r} cannot be served: it needs {', '.join(needs)}, and {reason}; `divprune methods` "
            "lists others"
        )
    if needs:
        layers_read(config, method)


def why_refused(method: Method, family: ServedFamily, modality: Modality) -> str:
    """Return why a method cannot select from a family's items of one modality, or nothing if it can."""
    unknown = sorted(method.needs - family.supplies(modality))
    if method.layers:
        return "acts inside the LLM, where vLLM keeps all tokens that a prompt began with"
    if method.needs & QUERY_NEEDS:
        return (
            f"reads the question ({', '.join(sorted(method.needs & QUERY_NEEDS))}), and what an item keeps must not "
            "depend on it: vLLM caches encoded items, and hands them to every prompt that shows the same"
        )
    if method.may_keep_fewer or method.count == "schedule":
        return "may keep another number of tokens than it is asked for, and vLLM fixes the prompt's length before"
    if unknown:
        return f"needs {', '.join(unknown)}, which is not known of {modality}s of {family.architecture} in vLLM"
    return _trial(method, modality, family)


def _trial(method: Method, modality: Modality, family: ServedFamily) -> str:
    """Let the method select once; some refuse a modality."""
    num_tokens = 12
    tokens, heads = torch.eye(num_tokens), torch.linspace(0.0, 1.0, num_tokens).unsqueeze(0)
    grid = (1, 3, 4) if modality == "image" and not family.has_tiles else (3, 2, 2)
    pieces = pieces_of_grid(grid)
    if not (family.has_grid or family.has_tiles or modality == "video"):
        pieces = (Piece(0, 2, 2, 2), Piece(4, 2, 4, 4))  # the whole image, and its tiles put together
    known = ItemContext(
        modality=modality, grid=grid if family.has_grid else None, pieces=pieces, vision_attention=heads,
        early_vision_attention=heads, vision_keys=tokens.unsqueeze(0), patch_features=tokens,
    )  # fmt: skip
    try:
        checked_selection(method, tokens, 2, known)
    except ValueError as error:
        return f"cannot select from {modality}s ({error})"
    return ""
