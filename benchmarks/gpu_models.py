"""The paper's models, whole and with random weights, on a GPU: the parts of `benchmarks.gpu` that need one.

Each part is one model with one attention implementation: the unpruned model, random tokens, and the rows of the paper's
Table 2 (VTW and FastV at equal FLOPs, DivPrune), in turns. A rehearsal has the same rows and depth at a toy width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import is_flash_attn_2_available

from divprune.config import PruningConfig
from divprune.efficiency import (
    UNPRUNED_VARIANT,
    BenchSubject,
    Variant,
    architecture_config,
    get_architecture,
    measure_variants,
    random_inputs,
    random_model,
    run_once,
)
from divprune.evaluation.runs import UNPRUNED
from divprune.experiments.paper.rows import RowMaker, main_methods
from divprune.experiments.subjects import paper_subject
from divprune.records import Record, provenance

MODELS = ("llava-1.5-7b", "llava-1.6-7b", "llava-next-video-7b")
NUM_TEXT_TOKENS = 48
NUM_NEW_TOKENS, REPEATS = 32, 10
REHEARSED_TOKENS, REHEARSED_REPEATS = 3, 1
TOY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
TOY_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}


@dataclass(frozen=True)
class ModelPart:
    """One model in one way; picklable, for the processes that measure memory.

    Attributes:
        model: an architecture's name.
        attention: "sdpa" or "flash_attention_2".
        is_compiled: whether the cache is static, with which transformers compiles the steps of decoding on a GPU.
        rehearses: whether it is of toy width, on the CPU.
    """

    model: str
    attention: str = "sdpa"
    is_compiled: bool = False
    rehearses: bool = False

    @property
    def name(self) -> str:
        """What the part is called."""
        way = "compiled" if self.is_compiled else self.attention.partition("_")[0]
        return f"{self.model}-{way}"

    @property
    def record_name(self) -> str:
        """What the record is called: with plain sdpa that of `divprune bench`, with the device behind it."""
        way = self.name.removeprefix(self.model)
        return f"bench-{self.model}-cuda{'' if way == '-sdpa' else way}"

    @property
    def refusal(self) -> str | None:
        """Why it cannot run here, if so."""
        if self.attention != "flash_attention_2" or self.rehearses or is_flash_attn_2_available():
            return None
        return "flash_attn is not installed"

    def measure(self, output: Path) -> Path:
        """Measure, and write the record."""
        variants = paper_variants(self.model)
        origin = provenance()
        subject, measurements, rows = measure_variants(
            partial(loaded, self, variants if self.is_compiled else ()),
            variants,
            num_new_tokens=REHEARSED_TOKENS if self.rehearses else NUM_NEW_TOKENS,
            repeats=REHEARSED_REPEATS if self.rehearses else REPEATS,
            # Each of these processes builds the model, and would compile it too.
            memory=not self.is_compiled,
        )
        config = {
            "model": self.model,
            "weights": "random",
            "num_layers": subject.model.config.get_text_config().num_hidden_layers,
            "num_prompt_tokens": subject.inputs["input_ids"].shape[1],
            "keep_ratio": get_architecture(self.model).keep_ratio,
            "num_new_tokens": measurements[0].timings[0].num_new_tokens,
            "warm_up": 1,
            "repeats": len(measurements[0].timings),
            "dtype": str(subject.model.dtype).removeprefix("torch."),
            "device": subject.model.device.type,
            "attention": subject.model.config.get_text_config()._attn_implementation,
            "static_cache": self.is_compiled,
            "is_rehearsal": self.rehearses,
        }
        return Record(self.record_name, config, rows, origin).save(output)


def model_parts(rehearses: bool) -> list[ModelPart]:
    """All of them, in the order of what one wants to know first."""
    parts = [ModelPart(model) for model in MODELS]
    parts += [ModelPart(model, "flash_attention_2") for model in MODELS]
    parts.append(ModelPart(MODELS[0], is_compiled=True))
    return [replace(part, rehearses=rehearses) for part in parts]


def paper_variants(model: str) -> list[Variant]:
    """The rows of Table 2 on any of the paper's models, at the keep ratio that it uses there."""
    keep_ratio = get_architecture(model).keep_ratio
    found = []
    for row in main_methods(RowMaker("table2", paper_subject(model), keep_ratio, ".")):
        setting = row.setting
        assert setting is not None
        assert setting.refusal is None, setting.refusal
        if setting.method == UNPRUNED:
            found.append(UNPRUNED_VARIANT)
            continue
        budget: dict[str, Any] = {"keep_ratio": setting.keep_ratio, "num_keep": setting.num_keep}
        found.append(Variant(setting.method, PruningConfig.parse(setting.method, **budget)))
    return found


def loaded(part: ModelPart, compiled_for: Sequence[Variant]) -> BenchSubject:
    """Build the model and its prompt, and call what compiles once: that is no part of a measurement."""
    config = toy_config(part.model) if part.rehearses else architecture_config(part.model)
    device = "cpu" if part.rehearses else "cuda"
    model = random_model(config, dtype=torch.bfloat16, device=device)
    # A CPU has no flash attention; its code differs from sdpa's by this one name.
    model.set_attn_implementation("sdpa" if part.rehearses else part.attention)
    inputs = random_inputs(model, get_architecture(part.model), NUM_TEXT_TOKENS)
    if part.is_compiled:
        assert model.generation_config is not None
        model.generation_config.cache_implementation = "static"
    for variant in compiled_for:
        run_once(model, inputs, variant, REHEARSED_TOKENS if part.rehearses else NUM_NEW_TOKENS)
    return BenchSubject(model, inputs)


def toy_config(model: str) -> PreTrainedConfig:
    """An architecture with all its layers and tokens, and next to no width."""
    config = architecture_config(model)
    sizes: tuple[tuple[Any, Mapping[str, int]], ...] = (
        (config.get_text_config(), TOY_TEXT),
        (config.vision_config, TOY_TOWER),  # type: ignore[attr-defined]
    )
    for each, values in sizes:
        for name, value in values.items():
            setattr(each, name, value)
    return config
