"""An attached model and what is known of it: placeholders, decoder, positions, settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from divprune.huggingface.families.registry import Family, family_of
from divprune.methods.item_context import Modality


@dataclass(frozen=True)
class ModelAdapter:
    """A model and its family; made once, when the model is attached.

    Attributes:
        model: the model.
        family: what differs between it and other models.
    """

    model: PreTrainedModel
    family: Family

    @classmethod
    def of(cls, model: PreTrainedModel) -> "ModelAdapter":
        """Look up a model's family.

        Raises:
            UnsupportedModelError: no family is listed for the model's type.
        """
        return cls(model, family_of(model))

    @property
    def text_config(self) -> Any:
        """The configuration of the LLM."""
        return self.model.config.get_text_config()

    @property
    def attention_implementation(self) -> str:
        """The LLM's, such as "sdpa"; it can change after `attach`."""
        return str(self.text_config._attn_implementation)

    @property
    def has_flash_attention(self) -> bool:
        """Whether the LLM uses one of the kinds of flash attention."""
        return "flash" in self.attention_implementation

    @property
    def decoder(self) -> nn.Module:
        """The LLM without its head."""
        return cast(nn.Module, self.model.get_decoder())

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The LLM's layers."""
        return cast(nn.ModuleList, self.decoder.layers)

    @property
    def num_layers(self) -> int:
        """How many decoder layers the LLM has."""
        return int(self.text_config.num_hidden_layers)

    @property
    def num_axes(self) -> int:
        """Axes of M-RoPE coordinates: frame, row, column, unless the configuration names more."""
        rope = getattr(self.text_config, "rope_parameters", None) or {}
        return len(rope.get("mrope_section") or (0, 0, 0))

    @property
    def padding_id(self) -> int:
        """The id that stands at padding."""
        padding = getattr(self.text_config, "pad_token_id", None)
        return 0 if padding is None or padding < 0 else int(padding)

    def placeholder_id(self, modality: Modality) -> int:
        """Look up the id of the placeholders of images or videos."""
        return int(getattr(self.model.config, self.family.placeholders[modality]))

    @property
    def placeholder_ids(self) -> list[int]:
        """The ids of the placeholders of all modalities."""
        return [self.placeholder_id(modality) for modality in self.family.modalities]

    def placeholder_mask(self, input_ids: Tensor) -> Tensor:
        """Locate the placeholders of all modalities in ids (B, L); (B, L) bool."""
        return torch.isin(input_ids, torch.tensor(self.placeholder_ids, device=input_ids.device))

    def own_positions(self, inputs: dict[str, Any]) -> Tensor:
        """Let the model number a prompt: (B, L), or (r, B, L) with an axis of coordinates a row.

        In most models the axes come behind a row that counts tokens; Hunyuan and Cosmos 3 have none.
        """
        prepare = cast(Callable[..., Tensor], self.model._prepare_position_ids_for_generation)
        return prepare(inputs["input_ids"], inputs)

    def generation_setting(self, inputs: Mapping[str, Any], name: str) -> Any:
        """Resolve a generation setting as `generate` does: argument, then `generation_config`, then the model's own."""
        for value in (
            inputs.get(name),
            getattr(inputs.get("generation_config"), name, None),
            getattr(self.model.generation_config, name, None),
        ):
            if value is not None:
                return value
        return None
