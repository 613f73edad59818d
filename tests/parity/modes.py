"""All modes, in the order of the table's columns: a way of calling is a function in one of these files."""

from tests.parity import decoding, direct, inside, prompts, second_turn
from tests.parity.cells import Mode

MODES: dict[str, Mode] = {
    mode.name: mode for part in (prompts, decoding, direct, second_turn, inside) for mode in part.MODES
}

EVERY_FAMILY = {"greedy", "new image, full ids", "layer K"}
"""Modes that `--cells few` runs with every family."""
EVERY_MODE = {"llava", "internvl", "gemma3", "qwen2_5_vl"}
"""Families that `--cells few` runs in every mode: plain, tiled, with blocks that see each other both ways, M-RoPE."""


def is_among_few(name: str, mode: str) -> bool:
    return name in EVERY_MODE or mode in EVERY_FAMILY
