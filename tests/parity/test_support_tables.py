"""The recorded table, in and out, and as texts."""

from divprune.huggingface.support import Cell, FamilySupport, Support
from divprune.huggingface.support_tables import support_tables
from tools.render_support import page

SUPPORT = Support(
    newest="5.23.0",
    oldest="5.18",
    groups={"Decoding": ("greedy", "beams"), "Turns": ("again",)},
    families=(
        FamilySupport(
            "llava", "llava", ("image",), "a/b", {"greedy": Cell("ok"), "beams": Cell("ok"), "again": Cell("ok")}
        ),
        FamilySupport(
            "qwen", "qwen", ("image", "video"), "c/d",
            {"greedy": Cell("ok"), "beams": Cell("refused", "no *beams*"), "again": Cell("refused", "no cache_size")},
            {"greedy": Cell("n/a", "too old")},
        ),
    ),
)  # fmt: skip


def test_json_and_back() -> None:
    assert Support.from_json(SUPPORT.to_json()) == SUPPORT


def test_each_group_is_a_table_with_its_own_notes() -> None:
    decoding, turns = support_tables(SUPPORT)
    assert decoding.modes == ("greedy", "beams")
    assert decoding.rows == (("llava", ("ok", "ok")), ("qwen", ("ok (1)", "refused (2)")))
    assert decoding.notes == ("with transformers 5.18: n/a, too old", "no *beams*")
    assert turns.rows == (("llava", ("ok",)), ("qwen", ("refused (1)",)))
    assert turns.notes == ("no cache_size",)


def test_the_page_has_a_row_for_every_family_and_quotes_the_reasons() -> None:
    text = page(SUPPORT)
    assert "| `qwen` | ok (1) | refused (2) |" in text
    assert "\n2. no \\*beams\\*\n" in text
    assert "| `qwen` | `qwen` | images and videos | c/d |" in text
