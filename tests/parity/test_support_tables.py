"""The recorded table, in and out, and as texts."""

import json
from dataclasses import replace
from pathlib import Path

from divprune.huggingface.families.support import Cell, FamilySupport, Support, load_support, support_tables
from tests.parity.record import write_support
from tools.render_support import page

SUPPORT = Support(
    newest="5.24.0",
    older=("5.18.0", "5.23.0"),
    groups={"Decoding": ("greedy", "beams"), "Turns": ("again",)},
    families=(
        FamilySupport(
            "llava", "llava", ("image",), "a/b", "original",
            {"greedy": Cell("ok"), "beams": Cell("ok"), "again": Cell("ok")},
        ),
        FamilySupport(
            "qwen", "qwen", ("image", "video"), "c/d", "compact",
            {"greedy": Cell("ok"), "beams": Cell("refused", "no *beams*"), "again": Cell("refused", "no cache_size")},
            {"5.18.0": {"greedy": Cell("n/a", "too old")}},
        ),
    ),
)  # fmt: skip


def test_json_and_back() -> None:
    assert Support.from_json(SUPPORT.to_json()) == SUPPORT


def test_each_group_is_a_table_with_its_own_notes() -> None:
    decoding, turns = support_tables(SUPPORT)
    assert decoding.modes == ("greedy", "beams")
    assert decoding.rows == (("llava", ("ok", "ok")), ("qwen", ("ok (1)", "refused (2)")))
    assert decoding.notes == ("with transformers 5.18.0: n/a, too old", "no *beams*")
    assert turns.rows == (("llava", ("ok",)), ("qwen", ("refused (1)",)))
    assert turns.notes == ("no cache_size",)


def test_the_page_names_every_version_that_the_suite_ran_with() -> None:
    assert "with transformers 5.24.0. The suite also ran with 5.18.0 and 5.23.0;" in page(SUPPORT)


def test_each_older_version_is_written_with_what_differs_there(tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    path.write_text(json.dumps(SUPPORT.to_json()), encoding="utf-8")
    same = {family.name: family.cells for family in SUPPORT.families}
    write_support({**same, "llava": same["llava"] | {"again": Cell("n/a", "no such class")}}, "5.20.1", path)
    written = load_support(path)
    assert (written.newest, written.older) == ("5.24.0", ("5.18.0", "5.20.1", "5.23.0"))
    llava, qwen = written.families
    assert llava.cells_of_older == {"5.20.1": {"again": Cell("n/a", "no such class")}}
    assert qwen == SUPPORT.families[1]
    write_support(same, "5.18.0", path)
    assert load_support(path).families == (llava, replace(qwen, cells_of_older={}))


def test_the_page_has_a_row_for_every_family_and_quotes_the_reasons() -> None:
    text = page(SUPPORT)
    assert "| `qwen` | ok (1) | refused (2) |" in text
    assert "\n2. no \\*beams\\*\n" in text
    assert "| `qwen` | `qwen` | images and videos | c/d |" in text
