"""Contracts with vLLM: the private and half-private symbols that the plugin relies on, checked by their signatures.

The plugin overrides methods of vLLM's processors and models, and calls functions that vLLM does not promise to keep.
Everything of that kind is listed here and nowhere else. A version of vLLM that keeps the contracts is served, tested or
not; one that breaks a contract is refused by the name of what changed, before an engine answers wrongly or fails in a
worker's log.

    registering    REGISTRATION: modules that vLLM has loaded by then, so the check costs milliseconds
    first import of a pruned model    MODELS: the families' modules, which take seconds to import
    vLLM's server, where `divprune serve` started it    SERVER
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any

from divprune.errors import UnsupportedVersionError
from divprune.vllm_plugin.versions import TESTED_RANGE, installed_version


@dataclass(frozen=True, slots=True)
class Contract:
    """A symbol of vLLM and what of it the plugin relies on.

    Attributes:
        place: "module:name" or "module:Class.name".
        positional: Arguments by place, without `self`; their names do not matter.
        keywords: Arguments by name.
        is_ours: Whether vLLM calls the plugin's override, which hands on what it does not know. vLLM may then pass
            more than is listed, and not less. Otherwise the plugin calls, and gives exactly what is listed.
        fields: Attributes of a class that are read, where they are not methods.
    """

    place: str
    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    is_ours: bool = False
    fields: tuple[str, ...] = ()

    def violation(self) -> str:
        """Return what changed, or nothing if the contract is kept."""
        module, _, path = self.place.partition(":")
        try:
            owner, found = _resolved(module, path)
        except (ImportError, AttributeError) as error:
            return f"{self.place} is not there ({error})"
        missing = [name for name in self.fields if not _has_field(found, name)]
        if missing:
            return f"{self.place} has no {', '.join(missing)}"
        if not (self.positional or self.keywords):
            return ""
        return self._signature_violation(inspect.signature(found), _is_bound(owner, path.rpartition(".")[2]))

    def _signature_violation(self, signature: inspect.Signature, is_bound: bool) -> str:
        given = [*([] if is_bound else ["self"]), *self.positional]
        bind = signature.bind_partial if self.is_ours else signature.bind
        try:
            bind(*given, **dict.fromkeys(self.keywords))
        except TypeError as error:
            wanted = ", ".join([*self.positional, *(f"{name}=" for name in self.keywords)])
            return f"{self.place} must take ({wanted}), its signature is now {_in_short(signature)} ({error})"
        return ""


_MODELS = "vllm.model_executor.models."
_PROCESSOR = "vllm.multimodal.processing:BaseMultiModalProcessor."
_INFO = "vllm.multimodal.processing:BaseProcessingInfo."
_EMBED_ARGUMENTS: dict[str, Any] = {
    "positional": ("input_ids", "multimodal_embeddings"),
    "keywords": ("is_multimodal",),
}

REGISTERING = (
    Contract("vllm:ModelRegistry.register_model", ("model_arch", "model_cls")),
    Contract(f"{_MODELS}config:MODELS_CONFIG_MAP", fields=("__setitem__",)),
    Contract(f"{_MODELS}config:VerifyAndUpdateConfig.verify_and_update_config", ("vllm_config",)),
    Contract(f"{_MODELS}config:VerifyAndUpdateConfig.verify_and_update_model_config", ("model_config",)),
)
"""Without these the plugin cannot even refuse."""

REGISTRATION = (
    *REGISTERING,
    # The front end: how many placeholders a prompt has.
    Contract(
        "vllm.multimodal:MULTIMODAL_REGISTRY.register_processor", ("processor",), ("info", "dummy_inputs")
    ),
    Contract(f"{_INFO}get_supported_mm_limits", is_ours=True),
    Contract(f"{_INFO}get_mm_max_tokens_per_item", ("seq_len", "mm_counts"), is_ours=True),
    Contract(f"{_INFO}get_tokenizer"),
    Contract("vllm.multimodal.processing:InputProcessingContext.get_hf_config"),
    Contract(f"{_PROCESSOR}apply", ("inputs", "timing_ctx"), is_ours=True),
    Contract(f"{_PROCESSOR}_apply_hf_processor_main", ("mm_items", "hf_kwargs"), is_ours=True),
    Contract(f"{_PROCESSOR}_get_mm_fields_config", ("hf_inputs", "hf_processor_mm_kwargs"), is_ours=True),
    Contract(
        f"{_PROCESSOR}_get_prompt_updates", ("mm_items", "hf_processor_mm_kwargs", "out_mm_kwargs"), is_ours=True
    ),
    Contract(f"{_PROCESSOR}_maybe_apply_prompt_updates", ("mm_items", "mm_res"), is_ours=True),
    Contract("vllm.multimodal.processing:ProcessorInputs", fields=("hf_processor_mm_kwargs",)),
    Contract("vllm.multimodal.processing.processor:MultiModalProcessingResult", fields=("prompt_updates",)),
    Contract("vllm.multimodal.processing.processor:ResolvedPromptUpdate", fields=("content",)),
    Contract("vllm.multimodal.processing:PromptReplacement", fields=("modality", "replacement")),
    Contract("vllm.multimodal.processing:PromptUpdateDetails", fields=("full", "is_embed")),
    Contract("vllm.multimodal.processing:PromptUpdateDetails.from_seq", ("seq",)),
    Contract("vllm.multimodal.parse:MultiModalDataItems.get_all_counts"),
    Contract("vllm.multimodal.inputs:MultiModalFieldConfig.batched", ("modality",), ("keep_on_cpu",)),
    # The workers: which rows of the encoder's output stay, and where they stand.
    Contract(f"{_MODELS}interfaces:SupportsMultiModal.embed_multimodal", keywords=("pixel_values",), is_ours=True),
    Contract(f"{_MODELS}interfaces:SupportsMultiModal.embed_input_ids", **_EMBED_ARGUMENTS),
    Contract(f"{_MODELS}interfaces:SupportsMRoPE.get_mrope_input_positions", ("input_tokens", "mm_features")),
    Contract("vllm.multimodal.inputs:MultiModalFeatureSpec", fields=("data", "modality", "mm_position")),
    Contract("vllm.multimodal.inputs:PlaceholderRange", fields=("offset", "length", "is_embed")),
    Contract("vllm.multimodal.inputs:MultiModalKwargsItems"),
    Contract("vllm.distributed:get_tp_group"),
    Contract("vllm.distributed.parallel_state:GroupCoordinator.broadcast", ("input_",)),
    Contract("vllm.distributed.parallel_state:GroupCoordinator.all_gather", ("input_",), ("dim",)),
    Contract("vllm.distributed.parallel_state:GroupCoordinator", fields=("is_first_rank",)),
    # What is refused, and what buffers are sized by.
    Contract(
        "vllm.config:VllmConfig",
        fields=(
            "model_config", "parallel_config", "scheduler_config", "compilation_config", "speculative_config",
            "ec_transfer_config",
        ),
    ),
    Contract("vllm.config:SchedulerConfig", fields=("max_num_batched_tokens",)),
    Contract("vllm.config:CompilationConfig", fields=("cudagraph_mm_encoder", "compile_mm_encoder")),
    Contract(
        "vllm.config:ParallelConfig",
        fields=("pipeline_parallel_size", "prefill_context_parallel_size", "use_ubatching"),
    ),
    Contract(
        "vllm.config:ModelConfig",
        fields=(
            "architecture", "uses_mrope", "multimodal_config", "max_model_len", "hf_config", "hf_text_config"
        ),
    ),
    Contract("vllm.config:MultiModalConfig", fields=("mm_processor_kwargs", "enable_mm_embeds", "mm_encoder_tp_mode")),
    Contract("vllm.config:MultiModalConfig.is_multimodal_pruning_enabled"),
    Contract("vllm.config:MultiModalConfig.get_limit_per_prompt", ("modality",)),
)  # fmt: skip
"""Checked when vLLM loads the plugin."""

_TOWERS = (
    # Queries and keys, in this order.
    Contract("vllm.model_executor.layers.attention:MMEncoderAttention.forward_native", ("query", "key", "value")),
    # What becomes of features becomes of what is captured.
    Contract(
        f"{_MODELS}llava_next:LlavaNextForConditionalGeneration._merge_image_patch_embeddings",
        ("image_size", "patch_embeddings"), ("strategy",),
    ),
    Contract(
        f"{_MODELS}llava_onevision:LlavaOnevisionForConditionalGeneration._merge_image_patch_embeddings",
        ("image_size", "patch_embeddings"), ("image_newline", "strategy"),
    ),
    Contract(f"{_MODELS}llava_onevision:LlavaOnevisionForConditionalGeneration.apply_pooling", ("image_features",)),
    Contract(f"{_MODELS}interns1:InternS1ForConditionalGeneration.pixel_shuffle", ("x",), ("scale_factor",)),
    Contract(
        f"{_MODELS}qwen2_5_vl:Qwen2_5_VisionTransformer.get_window_index_thw", ("grid_t", "grid_h", "grid_w")
    ),
)  # fmt: skip

_COUNTING = (
    "llava:LlavaForConditionalGeneration",
    "llava_next:LlavaNextForConditionalGeneration",
    "llava_next_video:LlavaNextVideoForConditionalGeneration",
    "llava_onevision:LlavaOnevisionForConditionalGeneration",
    "interns1:InternS1ForConditionalGeneration",
    "internvl:InternVLChatModel",
)
_MROPE = (
    "qwen2_vl:Qwen2VLForConditionalGeneration",
    "qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl:Qwen3VLForConditionalGeneration",
)

MODELS = (
    *_TOWERS,
    *(
        contract
        for model in (*_COUNTING, *_MROPE)
        for contract in (
            Contract(f"{_MODELS}{model}.embed_multimodal", keywords=("pixel_values",), is_ours=True),
            Contract(f"{_MODELS}{model}.embed_input_ids", **_EMBED_ARGUMENTS),
            Contract(f"{_MODELS}{model}.forward", ("input_ids", "positions"), is_ours=True),
            Contract(f"{_MODELS}{model}._processor_factory", fields=("info", "processor", "dummy_inputs")),
        )
    ),
    *(
        contract
        for model in _MROPE
        for contract in (
            Contract(f"{_MODELS}{model}.get_mrope_input_positions", ("input_tokens", "mm_features")),
        )
    ),
    Contract(
        f"{_MODELS}qwen3_vl:Qwen3VLMultiModalProcessor.get_video_repl",
        keywords=(
            "tokens_per_frame", "timestamps", "tokenizer", "vision_start_token_id", "vision_end_token_id",
            "video_token_id",
        ),
    ),
    Contract(
        f"{_MODELS}qwen3_vl:Qwen3VLProcessingInfo.get_num_frames_with_most_features",
        keywords=("seq_len", "mm_counts"),
    ),
)  # fmt: skip
"""Checked when a pruned model is first imported. `qwen3_vl.mrope_positions_factor`, which the plugin replaces where it
is there, is none of them: what it brings about is checked when the model is built (`mrope.require_angles`). So are the
layers of vision towers (`vision_capture.TowerCapture`)."""

SERVER = (
    Contract(
        "vllm.entrypoints.serve.exception_handling.error_response:create_error_response",
        ("message",),
        ("err_type", "status_code"),
    ),
    # Images and videos that requests name.
    Contract("vllm.exceptions:VLLMValidationError"),
    Contract("vllm.multimodal.media:MEDIA_CONNECTOR_REGISTRY.register", ("name",)),
    Contract("vllm.multimodal.media:MediaConnector.load_from_url", ("url", "media_io"), is_ours=True),
    Contract("vllm.multimodal.media:MediaConnector.load_from_url_async", ("url", "media_io"), is_ours=True),
    Contract("vllm.multimodal.media:MediaWithBytes", ("media", "original_bytes")),
    Contract("vllm.multimodal.media.image:ImageMediaIO.load_bytes", ("data",), is_ours=True),
    Contract("vllm.multimodal.media.video:VideoMediaIO.load_bytes", ("data",)),
    Contract("vllm.multimodal.media.video:VideoMediaIO.load_base64", ("media_type", "data")),
    Contract("vllm.multimodal.video_decoders.opencv:OpenCVVideoBackendMixin.open_video_capture", ("data",)),
    # What the line says that tells when the server is ready.
    Contract("vllm.multimodal:MULTIMODAL_REGISTRY.create_processor", ("model_config",)),
    Contract(f"{_PROCESSOR}get_dummy_mm_inputs", ("mm_counts",)),
    Contract("vllm.utils.torch_utils:set_default_torch_num_threads", ("num_threads",)),
    Contract(f"{_INFO}allowed_mm_limits"),
    Contract("vllm.config:CacheConfig", fields=("kv_cache_size_tokens", "block_size")),
    Contract("vllm.config:SchedulerConfig", fields=("max_num_seqs",)),
    Contract("vllm.config:VllmConfig", fields=("shutdown_timeout",)),
    Contract("vllm.config:ModelConfig", fields=("served_model_name",)),
    Contract("vllm.engine.protocol:EngineClient", fields=("model_config", "renderer")),
)  # fmt: skip
"""Checked when vLLM's server takes our middleware. What instances alone have is checked when the server starts: `args`,
`vllm_config`, `server` and `engine_client` of its state, and the renderer's `_mm_executor`."""


def violations(contracts: Iterable[Contract] = REGISTRATION) -> list[str]:
    """Return what changed, contract by contract; nothing if all are kept."""
    return [found for found in (contract.violation() for contract in contracts) if found]


def require(contracts: Iterable[Contract] = REGISTRATION) -> None:
    """Refuse a vLLM that breaks a contract.

    Raises:
        UnsupportedVersionError: It does; the message names what changed.
    """
    changed = violations(contracts)
    if changed:
        raise UnsupportedVersionError(refusal(changed))


def refusal(changed: list[str]) -> str:
    """Return the message that names what changed, and the remedy."""
    return (
        f"divprune's vLLM plugin cannot prune with vLLM {installed_version()}, in which internals that it relies on "
        f"changed: {'; '.join(changed)}. Install vllm{TESTED_RANGE}, or a divprune that knows this version"
    )


def _resolved(module: str, path: str) -> tuple[Any, Any]:
    """Return a symbol and what it is an attribute of."""
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, import_module(module))
    return owner, getattr(owner, name)


def _is_bound(owner: Any, name: str) -> bool:
    """Tell whether a symbol takes no `self`: anything but a plain method that is looked up on its class."""
    return not inspect.isclass(owner) or isinstance(inspect.getattr_static(owner, name), staticmethod | classmethod)


def _has_field(found: Any, name: str) -> bool:
    """Tell whether instances have an attribute, be it annotated only."""
    if hasattr(found, name):
        return True
    return any(name in vars(base).get("__annotations__", {}) for base in getattr(found, "__mro__", ()))


def _in_short(signature: inspect.Signature) -> str:
    """Return the names of a signature without their types."""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(bare))
