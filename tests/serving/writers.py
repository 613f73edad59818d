"""Every checkpoint by its name."""

from collections.abc import Callable
from pathlib import Path

from tests.serving.chat_checkpoint import write_internvl_chat
from tests.serving.checkpoints import write_llava
from tests.serving.qwen_checkpoints import write_qwen2_5_vl, write_qwen2_vl, write_qwen3_vl
from tests.serving.tiled_checkpoints import (
    write_internvl,
    write_llava_next,
    write_llava_next_video,
    write_llava_onevision,
)

WRITERS: dict[str, Callable[[Path], None]] = {
    "llava": write_llava,
    "llava_next": write_llava_next,
    "llava_next_video": write_llava_next_video,
    "llava_onevision": write_llava_onevision,
    "internvl": write_internvl,
    "internvl_chat": write_internvl_chat,
    "qwen2_vl": write_qwen2_vl,
    "qwen2_5_vl": write_qwen2_5_vl,
    "qwen3_vl": write_qwen3_vl,
}
