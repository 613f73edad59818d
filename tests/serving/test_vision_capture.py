"""What is read in a vision tower's layers does not depend on how its heads are split over ranks."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from divprune.methods import get_method
from divprune.vllm_plugin import vision_capture
from divprune.vllm_plugin.vision_capture import TowerCapture

WIDTH, HEADS, LAYERS, TOKENS = 8, 2, 3, 5


class Attention(nn.Module):
    """Stands for the module that vLLM hands queries and keys of some heads to."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return value


def tower(num_heads: int) -> Any:
    """A tower of SigLIP's shape, as far as it is looked at."""
    layers = [nn.ModuleDict({"self_attn": nn.ModuleDict({"attn": Attention(num_heads)})}) for _ in range(LAYERS)]
    encoder = nn.Module()
    encoder.layers = nn.ModuleList([as_attributes(layer) for layer in layers])
    model = nn.Module()
    model.encoder = encoder
    return model


def as_attributes(modules: nn.ModuleDict) -> nn.Module:
    found = nn.Module()
    for name, child in modules.items():
        found.add_module(name, as_attributes(child) if isinstance(child, nn.ModuleDict) else child)
    return found


def captured(spec: str, num_heads: int, query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """What is read where a rank's layers are given `query` and `key` (n, tokens, width of its heads)."""
    vision = SimpleNamespace(
        model_type="siglip_vision_model", num_hidden_layers=LAYERS, num_attention_heads=HEADS, hidden_size=WIDTH
    )
    config = SimpleNamespace(model_type="llava", vision_config=vision, vision_feature_layer=-1)
    model = tower(num_heads)
    capture = TowerCapture(model, nn.Identity(), config, get_method(spec), projects_cls_token=False)
    with capture.capturing(None) as found:
        for layer in model.encoder.layers:
            layer.self_attn.attn(query, key, key)
    return found.on(torch.device("cpu"))


@pytest.mark.parametrize("spec", ["tome", "cls-attention", "prumerge", "hiprune:early_layer=0"])
@pytest.mark.parametrize("rank", [0, 1])
def test_heads_of_all_ranks_are_read(spec: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(3, TOKENS, WIDTH, generator=generator) for _ in range(2))
    wanted = captured(spec, HEADS, query, key)
    parts = {tuple(half.flatten().tolist()): whole for whole in (query, key) for half in whole.chunk(2, dim=-1)}
    group = SimpleNamespace(all_gather=lambda part, dim: parts[tuple(part.flatten().tolist())])
    monkeypatch.setattr(vision_capture, "get_tp_group", lambda: group)
    found = captured(spec, HEADS // 2, query.chunk(2, dim=-1)[rank], key.chunk(2, dim=-1)[rank])
    assert found.keys() == wanted.keys() == get_method(spec).needs - {"patch_features", "pieces"}
    assert all(found[need].equal(wanted[need]) for need in wanted)
