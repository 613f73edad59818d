"""Family x mode: each cell runs against the hand-made reference, and its outcome is the recorded one.

A cell is *ok* when the pruned model gives the reference's numbers and would not with other tokens, *refused* when the
call raises an error of ours and the model is usable afterwards, *n/a* when there is nothing to prune or transformers
itself fails without pruning. Everything else is a failing test.
"""

import pytest
import transformers

from divprune.huggingface.families.support import load_support
from tests.parity.cells import cell_of
from tests.parity.modes import MODES
from tests.parity.record import REMEDY, recorded_cell
from tests.support.models.every_family import CASES


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_cell(name: str, mode: str, request: pytest.FixtureRequest) -> None:
    found = cell_of(MODES[mode], CASES[name])
    request.node.user_properties.append(("cell", (name, mode, found.to_json())))
    if request.config.getoption("--write-support", default=False):
        return
    expected = recorded_cell(name, mode)
    assert expected is not None, f"no cell is recorded for {name!r}, {mode!r}: {REMEDY}"
    difference = f"found {found}, recorded is {expected}: {REMEDY}"
    assert found.outcome == expected.outcome, difference
    # The words of transformers' errors change from version to version.
    assert found == expected or transformers.__version__ != load_support().newest, difference


def test_the_record_has_every_cell_and_no_other(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-support", default=False):
        return
    recorded = {family.name: list(family.cells) for family in load_support().families}
    assert recorded == {name: list(MODES) for name in CASES}, REMEDY
