"""Checkpoint folders that mean no good: refused in one line, soon, with nothing read from outside."""

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from divprune.checkpoint_checks import LAYER_NAMES, MOST_LAYERS, check_folder, check_template
from divprune.checkpoints import load_model
from divprune.errors import CheckpointError, DivpruneError, PromptError
from divprune.prompting import build_inputs
from tests.support import checkpoint_writers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_writers.write_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(folder: Path) -> str:
    """The one line that says why a folder is not loaded."""
    with pytest.raises(DivpruneError) as caught:
        load_model(str(folder), CPU, "auto")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message.replace(str(folder), "")) < 300
    assert not set(message) & {"\x1b", "\a"}
    return message


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "file",
    ["weights.bin", "../outside.safetensors", "/tmp/outside.safetensors", "sub/in.safetensors", "..\\out.safetensors",
     "weights.pt", "", ".safetensors/", None, 3, ["model.safetensors"]],
)  # fmt: skip
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "other.safetensors.index.json"])
def test_an_index_names_safetensors_files_of_its_folder(folder: Path, tmp_path: Path, file: Any, index: str) -> None:
    weights = load_file(folder / "model.safetensors")
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    (folder / "weights.bin").write_bytes(pickle.dumps(Trap(tmp_path / "was_run")))
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, file)}))
    assert "is no safetensors file of the folder" in refused(folder)
    assert not (tmp_path / "was_run").exists()


def test_an_honest_index_is_loaded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(weights, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert load_model(str(folder), CPU, "auto").model.config.model_type == "llava"


@pytest.mark.parametrize("count", [100_000, MOST_LAYERS + 1, 0, -1, 10**30])
@pytest.mark.parametrize("name", LAYER_NAMES)
def test_numbers_of_layers_are_those_of_a_model(tmp_path: Path, name: str, count: int) -> None:
    for config in ({name: count}, {"text_config": {name: count}}, {"a": {"b": {name: count}}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=rf"`{name}` of config.json must be between 1 and {MOST_LAYERS}, got"):
            check_folder("model", tmp_path)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 100_000), ("num_hidden_layers", -1), ("hidden_size", 10**9), ("intermediate_size", 10**9)],
)
def test_sizes_that_are_not_those_of_the_weights(folder: Path, part: str, key: str, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder)


@pytest.mark.parametrize("content", ['{"a": ' * 100_000, "[" * 100_000, "[]", "3", "{", "", "\udcff", "\x1b[2J"])
@pytest.mark.parametrize(
    "file",
    ["config.json", "model.safetensors.index.json", "tokenizer_config.json", "processor_config.json", "tokenizer.json"],
)
def test_files_that_are_no_json_objects(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(content.encode(errors="surrogateescape"))
    refused(folder)


def test_terminal_escapes_in_a_config_reach_no_terminal(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "\x1b[2J\x1b]0;owned\a"}))
    assert "\\x1b[2J" in refused(folder)


def test_an_adapter_is_told_from_a_checkpoint(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/somewhere/else"}))
    assert "merge it into its base model" in refused(folder)


HANGING = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
)
EATING = (
    "{{ 'a' * 10 ** 11 }}",
    "{% set s = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}{{ s.x }}",
    "{{ '%99999999999d' % 1 }}",
    "{{ 'a'.center(10 ** 11) }}",
    "{{ (range(99999) | list) * 10 ** 6 }}",
    "{% set s = namespace(x=[0]) %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}",
)
FAULTY = (
    "{% for %}",
    "{{ raise_exception('no') }}",
    "{{ messages[9].x.y }}",
    "{{ 1 / 0 }}",
    "{{ messages.__class__.__mro__ }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ '\x1b[2J' + 1 }}",
    "(" * 5000,
    "{{ " + "(" * 5000 + " }}",
    "{% if x %}" * 300,
)


@pytest.mark.parametrize("template", [*HANGING, *EATING])
@pytest.mark.slow
def test_a_template_that_hangs_or_eats_memory_is_refused(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divprune.checkpoint_checks.TEMPLATE_SECONDS", 2)
    with pytest.raises(CheckpointError, match="its chat template takes more than 2 seconds or 1024 MiB"):
        check_template("model", template)


@pytest.mark.parametrize("template", FAULTY)
def test_a_faulty_template_is_an_error_of_ours(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    image = Image.new("RGB", (56, 56))
    with pytest.raises((PromptError, CheckpointError)) as caught:
        build_inputs(load_model(str(folder), CPU, "auto"), [image], "What is this?")  # type: ignore[list-item]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(folder), "")) < 300


def test_templates_of_the_families_are_within_the_limits(whole: Path) -> None:
    start = time.perf_counter()
    check_template("model", (whole / "chat_template.jinja").read_text())
    check_template("model", None)
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize(("words", "is_refused"), [(2000, False), (2100, True), (200_000, True)])
def test_a_prompt_beyond_the_context_is_refused(whole: Path, words: int, is_refused: bool) -> None:
    loaded, image = load_model(str(whole), CPU, "auto"), Image.new("RGB", (56, 56))
    build: Callable[[], Any] = lambda: build_inputs(loaded, [image], "a " * words)  # type: ignore[list-item]  # noqa: E731
    if is_refused:
        with pytest.raises(PromptError, match=r"the prompt has \d+ tokens of text, and .* takes 2048; ask with less"):
            build()
    else:
        assert build()["input_ids"].shape[1] > words


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "llava_llama"},
            "LLaVA's original format (llava_llama); take the one converted for transformers",
        ),
        ({"model_type": "llava_qwen", "auto_map": {}}, "such as llava-hf/llava-1.5-7b-hf for liuhaotian/llava-v1.5-7b"),
        (
            {"model_type": "internvl_chat", "auto_map": {"AutoModel": "code.Model"}},
            "brings code of its own, which is not run",
        ),
    ],
)
def test_other_formats_name_the_next_step(folder: Path, config: dict[str, Any], message: str) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert message in refused(folder)


def test_weights_that_may_run_code_name_the_next_step(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "its weights are .bin files, which may run code; take a revision with safetensors" in refused(folder)
