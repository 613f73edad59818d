"""Where positions count tokens: numbered anew if asked for, or where RoPE is scaled."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm import LLM

from divprune.vllm_plugin import pruned_overrides
from tests.serving.cases import CASES, RATIO, expected, prompts
from tests.serving.engines import SETTINGS, answers, ask
from tests.serving.reference import divprune_rule

CASE = CASES["llava"]
Checkpoint = Callable[[str], Path]


def test_compact_positions_are_an_option(engine: Callable[..., Any], checkpoint: Checkpoint) -> None:
    llm, asked = engine("llava", {"keep_ratio": RATIO, "positions": "compact"}, **CASE.settings), prompts(CASE)
    wanted = expected(CASE, checkpoint("llava"), asked, divprune_rule(RATIO), compact=True)
    assert answers(ask(llm, asked)) == wanted
    assert wanted != expected(CASE, checkpoint("llava"), asked, divprune_rule(RATIO))


def test_scaled_rope_is_numbered_anew(
    engine: Callable[..., Any], checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(checkpoint("llava"), tmp_path / "scaled"))
    config = json.loads((folder / "config.json").read_text())
    theta = config["text_config"].get("rope_parameters", {}).get("rope_theta", 10000.0)
    config["text_config"]["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": theta}
    (folder / "config.json").write_text(json.dumps(config))
    engine.__self__.stop()
    llm = LLM(str(folder), hf_overrides=pruned_overrides(folder, keep_ratio=RATIO), **SETTINGS | CASE.settings)
    asked = prompts(CASE)
    assert answers(ask(llm, asked)) == expected(CASE, folder, asked, divprune_rule(RATIO), compact=True)
    llm.llm_engine.engine_core.shutdown()
