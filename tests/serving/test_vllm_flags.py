"""What vLLM's flags are given, and which of them answers depend on."""

from pathlib import Path

import pytest

from divprune.errors import ServerError
from divprune.serving.engine import EngineSettings
from divprune.serving.vllm_flags import answer_flags, flag_values


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-num-seqs", "8"),
        ("--max_num_seqs=8",),
        ("--gpu-memory-utilization", "0.8"),
        ("-tp", "2"),
        ("--tensor-parallel-size=2", "--enforce-eager"),
        ("--no-enable-prefix-caching",),
        ("-O3",),
        ("--compilation-config.mode", "none"),
        ("--cudagraph-capture-sizes", "1", "2", "4"),
        ("--limit-mm-per-prompt", '{"image": 4}'),
    ],
    ids=" ".join,
)
def test_flags_of_performance_are_no_part_of_the_settings(flags: tuple[str, ...]) -> None:
    assert answer_flags(flags) == ()
    assert answer_flags(("--dtype", "float32", *flags, "--seed", "-1")) == ("--dtype", "float32", "--seed", "-1")


@pytest.mark.parametrize(
    "flags",
    [("--max-model-len", "512"), ("--quantization", "fp8"), ("--mm-processor-kwargs", '{"size": 3}'), ("-q", "fp8")],
    ids=" ".join,
)
def test_all_other_flags_count(flags: tuple[str, ...]) -> None:
    assert answer_flags(flags) == flags


def test_spelling_and_order_do_not_matter_but_the_last_of_a_flag_does() -> None:
    assert answer_flags(("--seed=1", "--dtype", "auto")) == answer_flags(("--dtype=auto", "--seed", "1"))
    assert answer_flags(("--max_model_len=8", "--seed", "1")) == answer_flags(("--seed", "1", "--max-model-len", "8"))
    assert answer_flags(("--seed", "1", "--seed", "2")) != answer_flags(("--seed", "2", "--seed", "1"))


def test_settings_hold_what_answers_depend_on() -> None:
    def told(*flags: str) -> str:
        return str(EngineSettings("m", "divprune", 0.1, None, 8, 0.0, flags))

    assert told("--max-num-seqs", "8") == told()
    assert told("--dtype", "float32").endswith(", --dtype float32")


@pytest.mark.parametrize("content", [None, "a: [", "- port", "\x00"])
def test_a_config_file_that_cannot_be_read_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ServerError, match=r"serve\.yaml"):
        flag_values(("--config", str(path)))
