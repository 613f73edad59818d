"""PyramidDrop in a decoder whose every number can be followed on paper.

No layer changes a state: values and feed-forward blocks are zero. So what enters each layer is what the prompt held,
of length 1 in four dimensions, which the norm doubles. Layer 0 has dimension 2 of a token for its key, layer 1
dimension 0, layer 2 dimension 1; the query of the prompt's last token is 2 everywhere. The logit of a token in layer l
is then 2 x (2 x its number for the layer) / sqrt 4: attention ranks the tokens by these numbers.
"""

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlavaConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from divprune import prune
from divprune.methods import PyramidDrop
from tests.support.models.base import IMAGE, VOCABULARY, build_model, clip

# Token        0    1    2    3    4    5    6    7
LAYER_0 = (0.0, 0.7, 0.1, 0.6, 0.2, 0.5, 0.3, 0.4)
LAYER_1 = (0.5, 0.1, 0.6, 0.2, 0.7, 0.3, 0.4, 0.0)
LAYER_2 = (0.1, 0.7, 0.3, 0.6, 0.2, 0.5, 0.4, 0.0)
READS = (2, 0, 1)
"""The dimension that each layer's keys read."""
QUESTION = 5
"""The id of the last token, whose embedding is the fourth axis."""


def visual_tokens() -> Tensor:
    """(8, 4) of length 1: numbers for layers 1, 2 and 0, and what is missing from 1."""
    numbers = torch.tensor([LAYER_1, LAYER_2, LAYER_0], dtype=torch.float64).mT
    return torch.cat([numbers, (1 - numbers.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    # The second pair of a head's dimensions, 1 and 3, turns by 1e-6 a place: too little to change an order.
    text = LlamaConfig(
        **VOCABULARY, hidden_size=4, intermediate_size=4, num_hidden_layers=3, num_attention_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12}, rms_norm_eps=0.0,
    )  # fmt: skip
    model = build_model(LlavaConfig(vision_config=clip(42), text_config=text, image_token_id=IMAGE)).double()
    with torch.no_grad():
        for layer, dimension in zip(model.get_decoder().layers, READS, strict=True):
            attention = layer.self_attn
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.down_proj):
                linear.weight.zero_()
            attention.q_proj.weight[1, 3] = 1
            attention.k_proj.weight[1, dimension] = 1
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                nn.init.ones_(norm.weight)
        model.get_input_embeddings().weight[QUESTION] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    return model


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("num_drops", "kept"),
    [
        # Layer 1's own numbers rank .7 .6 .5 .4 first: tokens 4, 2, 0 and 6. Layer 0's, the layer before, would have
        # kept 1, 3, 5 and 7.
        (1, [0, 2, 4, 6]),
        # Of these, layer 2 has .1 .3 .2 .4: tokens 6 and 2. Of all eight it would have been 1 and 3, which are gone;
        # by layer 1's numbers 4 and 2.
        (2, [2, 6]),
    ],
)
def test_each_stage_ranks_by_its_own_first_layer(
    model: PreTrainedModel, implementation: str, num_drops: int, kept: list[int]
) -> None:
    model.set_attn_implementation({"text_config": implementation})
    method = PyramidDrop(first_layer=1, layers_per_stage=1, num_drops=num_drops)
    ids = torch.tensor([[1, *[IMAGE] * 8, QUESTION]])
    encoded = BaseModelOutputWithPooling(pooler_output=[visual_tokens()])
    with prune(model, method) as pruning:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), mm_encoder_outputs={"image": encoded})
    assert pruning.last is not None
    assert pruning.last.items[0].kept_indices.tolist() == kept
