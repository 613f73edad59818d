"""All modes, in the order of the table's columns: a way of calling is a function in one of these files."""

from tests.parity import decoding, direct, inside, prompts, second_turn
from tests.parity.cells import Mode

MODES: dict[str, Mode] = {
    mode.name: mode for part in (prompts, decoding, direct, second_turn, inside) for mode in part.MODES
}
